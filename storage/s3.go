package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3Scheme begins the URL of a bucket, or of what is below a prefix in one: s3://bucket/prefix.
const S3Scheme = "s3://"

// S3 is a Store of the objects of a bucket whose names begin with a prefix, on any server that speaks the protocol.
type S3 struct {
	core           minio.Core
	bucket, prefix string // the prefix ends with a slash, unless it is empty
}

// An object is sent in parts of at least partSize bytes, of which there may be 10,000, partThreads of them at once.
const (
	partSize    = 16 << 20
	maxParts    = 10_000
	partThreads = 4
)

// OpenS3 makes the Store of s3://bucket/prefix; nothing is sent yet. Credentials are those of AWS's own tools: of the
// environment, of ~/.aws, of the machine. The server is that of AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else AWS in
// AWS_REGION.
func OpenS3(at string) (*S3, error) {
	bucket, prefix, _ := strings.Cut(strings.TrimPrefix(at, S3Scheme), "/")
	if !strings.HasPrefix(at, S3Scheme) || bucket == "" {
		return nil, fmt.Errorf("%q is not the place of a bucket: want %sBUCKET/PREFIX", at, S3Scheme)
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	region := cmp.Or(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"), "us-east-1")
	endpoint := cmp.Or(os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"))
	o := &minio.Options{Secure: true, Region: region, Creds: credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{Client: http.DefaultClient},
	})}
	host := "s3." + region + ".amazonaws.com"
	if endpoint != "" {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
			return nil, fmt.Errorf("AWS_ENDPOINT_URL is %q, want http:// or https:// and a host", endpoint)
		}
		host, o.Secure, o.BucketLookup = u.Host, u.Scheme == "https", minio.BucketLookupPath
	}
	client, err := minio.New(host, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return &S3{minio.Core{Client: client}, bucket, prefix}, nil
}

// explain names the object, and makes the errors of Store of the server's.
func (s *S3) explain(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf("%s %s%s/%s%s", verb, S3Scheme, s.bucket, s.prefix, name)
	switch r := minio.ToErrorResponse(err); {
	case r.Code == minio.NoSuchBucket:
		return fmt.Errorf("%s: there is no bucket %q: make it first", what, s.bucket)
	case r.Code == minio.NoSuchKey || r.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s: %w", what, fs.ErrNotExist)
	case r.Code == minio.PreconditionFailed || r.StatusCode == http.StatusPreconditionFailed ||
		r.StatusCode == http.StatusConflict:
		return fmt.Errorf("%s: %w", what, ErrPrecondition)
	case r.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%s: %w: %w (credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, or the machine)",
			what, fs.ErrPermission, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Put implements Store. Large objects are sent in parts; what an earlier Put of the name left unfinished is removed.
func (s *S3) Put(ctx context.Context, name string, r io.Reader, size int64, o PutOptions) error {
	key := s.prefix + name
	opts := minio.PutObjectOptions{
		PartSize: uint64(max(partSize, (size+maxParts-1)/maxParts)), NumThreads: partThreads, ConcurrentStreamParts: true,
		ContentType: "application/octet-stream",
	}
	if o.IfAbsent {
		opts.SetMatchETagExcept("*")
	} else if o.IfMatch != "" {
		opts.SetMatchETag(o.IfMatch)
	}
	if size > partSize {
		if err := s.core.RemoveIncompleteUpload(ctx, s.bucket, key); err != nil {
			return s.explain("put", name, err)
		}
	}
	_, err := s.core.Client.PutObject(ctx, s.bucket, key, r, size, opts)
	return s.explain("put", name, err)
}

// Get implements Store.
func (s *S3) Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	opts := minio.GetObjectOptions{}
	switch {
	case n == 0:
		return http.NoBody, nil
	case off > 0 || n > 0:
		end := int64(0) // to the end
		if n > 0 {
			end = off + n - 1
		}
		if err := opts.SetRange(off, end); err != nil {
			return nil, err
		}
	}
	r, _, _, err := s.core.GetObject(ctx, s.bucket, s.prefix+name, opts)
	if err != nil {
		return nil, s.explain("get", name, err)
	}
	return r, nil
}

// Stat implements Store.
func (s *S3) Stat(ctx context.Context, name string) (Object, error) {
	info, err := s.core.StatObject(ctx, s.bucket, s.prefix+name, minio.StatObjectOptions{})
	if err != nil {
		return Object{}, s.explain("stat", name, err)
	}
	return Object{name, info.Size, info.ETag}, nil
}

// List implements Store.
func (s *S3) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		list := s.core.Client.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true})
		for info := range list {
			o := Object{strings.TrimPrefix(info.Key, s.prefix), info.Size, info.ETag}
			if !yield(o, s.explain("list", prefix, info.Err)) || info.Err != nil {
				return
			}
		}
	}
}

// Delete implements Store.
func (s *S3) Delete(ctx context.Context, name string) error {
	err := s.explain("delete", name, s.core.RemoveObject(ctx, s.bucket, s.prefix+name, minio.RemoveObjectOptions{}))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
