package storage_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/storage/storagetest"
)

func TestFolder(t *testing.T) {
	storagetest.TestStore(t, storage.Folder{FS: storage.OS, Root: filepath.Join(t.TempDir(), "root")})
}

func TestS3(t *testing.T) {
	storagetest.StartGateway(t)
	s, err := storage.OpenS3("s3://" + storagetest.Bucket + "/some/prefix")
	if err != nil {
		t.Fatal(err)
	}
	storagetest.TestStore(t, s)
}

func TestS3Errors(t *testing.T) {
	storagetest.StartGateway(t)
	nowhere, err := storage.OpenS3("s3://nowhere/x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nowhere.Get(t.Context(), "a", 0, -1); err == nil || !strings.Contains(err.Error(), `there is no bucket "nowhere"`) {
		t.Errorf("no bucket: %v", err)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	s, err := storage.OpenS3("s3://" + storagetest.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Put(t.Context(), "a", strings.NewReader("a"), 1, storage.PutOptions{})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "AWS_SECRET_ACCESS_KEY") {
		t.Errorf("wrong credentials: %v", err)
	}
	for at, want := range map[string]string{"s3://": "want s3://BUCKET/PREFIX", "http://x": "want s3://BUCKET/PREFIX"} {
		if _, err := storage.OpenS3(at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", at, err)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL", "localhost:9000")
	if _, err := storage.OpenS3("s3://b"); err == nil || !strings.Contains(err.Error(), "want http:// or https://") {
		t.Errorf("an endpoint without a scheme: %v", err)
	}
}
