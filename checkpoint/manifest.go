package checkpoint

import (
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/zeebo/blake3"
	"google.golang.org/protobuf/proto"

	checkpointv1 "github.com/herdtrain/herd/proto/checkpoint/v1"
	"github.com/herdtrain/herd/storage"
)

// manifest is a manifest file, decoded.
type manifest struct {
	state   State
	tensors int64
	writers []Files // in the order of numbers, from 0
}

// check says what is wrong with a state that is to be saved or has been read.
func (s State) check() error {
	switch {
	case !s.id().valid():
		return fmt.Errorf("step %d, generation %d, attempt %d: want at least 0, 1, 1", s.Step, s.Generation, s.Attempt)
	case s.Samples < 0 || s.Tokens < 0 || s.OptimizerStep < 0:
		return fmt.Errorf("samples %d, tokens %d, optimizer step %d: want no negative number", s.Samples, s.Tokens,
			s.OptimizerStep)
	case !(s.ValidationLoss >= 0) || math.IsInf(s.ValidationLoss, 1):
		return fmt.Errorf("validation loss %v, want a finite number, not below 0", s.ValidationLoss)
	case len(s.Config) > maxConfig:
		return fmt.Errorf("the job file has %d bytes, want at most %d", len(s.Config), maxConfig)
	case !utf8.ValidString(s.Config):
		return errors.New("the job file is not valid UTF-8")
	}
	if s.Parent.Name == "" && len(s.Parent.Ancestors) == 0 {
		return nil
	}
	return s.Parent.check()
}

func encodeManifest(m manifest) ([]byte, error) {
	s := m.state
	head := &checkpointv1.Manifest{
		Step: s.Step, Generation: s.Generation, Attempt: s.Attempt, Incarnation: s.Incarnation,
		Parent: s.Parent.Name, Ancestors: s.Parent.Ancestors, ParentManifestBlake3: s.Parent.Manifest[:],
		JobName: s.JobName, JobDigest: s.JobDigest, ConfigDigest: s.ConfigDigest.String(),
		TokenizerDigest: s.TokenizerDigest, DatasetDigest: s.DatasetDigest,
		Samples: s.Samples, Tokens: s.Tokens, Seed: s.Seed, RngPolicy: s.RNGPolicy,
		ValidationLoss: s.ValidationLoss, OptimizerStep: s.OptimizerStep, DtypePolicy: s.DTypePolicy,
		Layout: &checkpointv1.Layout{
			Data: int32(s.Layout.Data), Tensor: int32(s.Layout.Tensor), Pipeline: int32(s.Layout.Pipeline),
			Context: int32(s.Layout.Context), Zero: int32(s.Layout.Zero),
		},
		CodeVersion: s.CodeVersion, CreatedUnixNano: s.Created.UnixNano(), Tensors: m.tensors,
	}
	first, err := proto.Marshal(head)
	if err != nil {
		return nil, err
	}
	records := [][]byte{first, []byte(s.Config)}
	for _, w := range m.writers {
		rec, err := proto.Marshal(&checkpointv1.Writer{
			DataSize: w.DataSize, DataBlake3: w.Data[:],
			IndexSize: w.IndexSize, IndexBlake3: w.Index[:],
		})
		if err != nil {
			return nil, err
		}
		records = append(records, rec)
	}
	return encodeRecords(manifestForm, records)
}

func readManifest(r storage.Reader, path string) (manifest, Digest, error) {
	var m manifest
	digest, err := readRecords(r, path, manifestForm, func(i int, rec []byte) error {
		var err error
		switch i {
		case 0:
			err = m.decodeHead(rec)
		case 1:
			m.state.Config = string(rec)
			if blake3.Sum256(rec) != m.state.ConfigDigest {
				err = errors.New("the job file is not the one of the config digest")
			}
		default:
			err = m.decodeWriter(rec)
		}
		if err != nil {
			return &DamageError{File: path, Reason: fmt.Sprintf("record %d", i), Err: err}
		}
		return nil
	})
	if err != nil {
		return manifest{}, Digest{}, err
	}
	if len(m.writers) == 0 {
		return manifest{}, Digest{}, damaged(path, "it names no writer")
	}
	if err := m.state.check(); err != nil {
		return manifest{}, Digest{}, &DamageError{File: path, Reason: "it makes no sense", Err: err}
	}
	return m, digest, nil
}

func (m *manifest) decodeHead(rec []byte) error {
	var h checkpointv1.Manifest
	if err := unmarshal.Unmarshal(rec, &h); err != nil {
		return err
	}
	parent, err := digestOf(h.ParentManifestBlake3)
	if err != nil {
		return err
	}
	layout := h.GetLayout()
	m.tensors = h.Tensors
	m.state = State{
		Step: h.Step, Generation: h.Generation, Attempt: h.Attempt, Incarnation: h.Incarnation,
		Parent:  Ref{Name: h.Parent, Manifest: parent, Ancestors: h.Ancestors},
		JobName: h.JobName, JobDigest: h.JobDigest,
		TokenizerDigest: h.TokenizerDigest, DatasetDigest: h.DatasetDigest,
		Samples: h.Samples, Tokens: h.Tokens, Seed: h.Seed, RNGPolicy: h.RngPolicy,
		ValidationLoss: h.ValidationLoss, OptimizerStep: h.OptimizerStep, DTypePolicy: h.DtypePolicy,
		Layout: Layout{
			int(layout.GetData()), int(layout.GetTensor()), int(layout.GetPipeline()),
			int(layout.GetContext()), int(layout.GetZero()),
		},
		CodeVersion: h.CodeVersion, Created: time.Unix(0, h.CreatedUnixNano).UTC(),
	}
	return m.state.ConfigDigest.UnmarshalText([]byte(h.ConfigDigest))
}

func (m *manifest) decodeWriter(rec []byte) error {
	if len(m.writers) == maxWriters {
		return fmt.Errorf("more than %d writers", maxWriters)
	}
	var w checkpointv1.Writer
	if err := unmarshal.Unmarshal(rec, &w); err != nil {
		return err
	}
	data, err := digestOf(w.DataBlake3)
	if err != nil {
		return err
	}
	index, err := digestOf(w.IndexBlake3)
	if err != nil {
		return err
	}
	if w.DataSize < 0 || w.IndexSize < 0 {
		return fmt.Errorf("sizes %d and %d", w.DataSize, w.IndexSize)
	}
	m.writers = append(m.writers, Files{int64(len(m.writers)), w.DataSize, w.IndexSize, data, index})
	return nil
}

func digestOf(b []byte) (d Digest, err error) {
	if len(b) != len(d) {
		return d, fmt.Errorf("a digest of %d bytes, want %d", len(b), len(d))
	}
	copy(d[:], b)
	return d, nil
}
