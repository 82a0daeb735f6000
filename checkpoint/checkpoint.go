// Package checkpoint keeps the state of a training job on disk so that no crash loses it: Save, or Create, Write and
// Seal where many processes write, makes a directory that is complete once its manifest is there (sealed), a Committer
// makes it the one to resume from (committed), Resolve finds the newest committed one that is undamaged, Prune deletes
// old ones. Tensors are stored in whatever boxes the ranks hold, and are read in any other boxes.
// docs/format/checkpoint.md describes the files, the order in which they are written, and why a crash at any moment
// leaves the old or the new state whole.
//
// Nothing here starts a goroutine. Functions that write must be called by one process at a time, the holder of the
// run's lock, but for Write; reading needs no lock.
package checkpoint

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/herdtrain/herd/tensor"
)

// Folder is the name, in a run's output directory, of the folder that holds its checkpoints: the root of this package.
const Folder = "checkpoints"

var (
	// ErrCorrupt: a file is damaged, cut, not what the manifest says, or cannot be read. The error is a *DamageError.
	ErrCorrupt = errors.New("damaged")
	// ErrVersion: an undamaged file of a version that this build does not know.
	ErrVersion = errors.New("written by a newer version")
	// ErrNotFound: no such checkpoint or tensor.
	ErrNotFound = errors.New("not found")
	// ErrNone: nothing was ever committed; start fresh.
	ErrNone = errors.New("no committed checkpoint")
	// ErrFenced: a later generation, or a later save of the same one, is committed already.
	ErrFenced = errors.New("overtaken")
)

// DamageError says what is damaged. It is ErrCorrupt, and what Err is.
type DamageError struct {
	File          string // path
	Tensor        string // empty: not in a tensor
	Begin, Length int64  // the bytes in File of the damaged chunk of Tensor; 0, 0: it is not the bytes
	Reason        string
	Err           error // of the file system, or nil
}

func (e *DamageError) Error() string {
	s := e.File + " is damaged"
	if e.Tensor != "" {
		s += fmt.Sprintf(" in tensor %q", e.Tensor)
	}
	if e.Length > 0 {
		s += fmt.Sprintf(" (bytes %d to %d)", e.Begin, e.Begin+e.Length-1)
	}
	s += ": " + e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is makes every DamageError an ErrCorrupt.
func (e *DamageError) Is(target error) bool { return target == ErrCorrupt }
func (e *DamageError) Unwrap() error        { return e.Err }

func damaged(file, format string, args ...any) error {
	return &DamageError{File: file, Reason: fmt.Sprintf(format, args...)}
}

// Tensor is a tensor to save, or a box of one: the logical part that the model names, never a fused weight.
type Tensor struct {
	Name  string // as a path: letters, digits, '.', '_', '-', elements separated by '/'
	DType tensor.DType
	Shape []int64 // of the whole tensor; empty: a scalar
	Box   Box     // what of it Data is; zero: all
	Data  []byte  // row-major, little-endian
}

// Info describes a stored tensor and where its bytes are.
type Info struct {
	Name   string
	DType  tensor.DType
	Shape  []int64
	Bytes  int64   // of the whole tensor
	Slices []Slice // each element is in exactly one; in the order of writers and their data files
}

// Slice is a box of a tensor that lies in one piece in a data file.
type Slice struct {
	Writer int // whose data file it is in
	Box    Box
	Begin  int64 // byte offset in the file
	Bytes  int64
	Chunk  int64    // bytes of each chunk, but for a shorter last one
	CRC32C []uint32 // of each chunk
}

// State is what a checkpoint says beside its tensors. Digests of other things are opaque strings.
type State struct {
	Step        int64  `json:"step"`       // steps done
	Generation  int64  `json:"generation"` // of the saving workers, from 1; see NextGeneration
	Attempt     int64  `json:"attempt"`    // of this generation to save this step; Create chooses it
	Incarnation string `json:"incarnation"`
	Parent      Ref    `json:"parent,omitzero"` // the last committed checkpoint, which this one continues; zero: none

	JobName         string `json:"job_name"`
	JobDigest       string `json:"job_digest"`
	Config          string `json:"-"`             // the job file in force, with every default, as text
	ConfigDigest    Digest `json:"config_digest"` // of Config; Seal sets it
	TokenizerDigest string `json:"tokenizer_digest"`
	DatasetDigest   string `json:"dataset_digest"`

	Samples   int64  `json:"samples"` // the data cursor: the next global sample ordinal
	Tokens    int64  `json:"tokens"`  // tokens seen
	Seed      uint64 `json:"seed"`
	RNGPolicy string `json:"rng_policy"` // how random numbers derive from the seed

	ValidationLoss float64 `json:"validation_loss,omitzero"` // of these weights; 0: it was not measured

	OptimizerStep int64  `json:"optimizer_step"` // updates applied: Step less the skipped ones
	DTypePolicy   string `json:"dtype_policy"`   // which tensors have which type, for people
	Layout        Layout `json:"layout"`         // used by the saving job; any layout may load

	CodeVersion string    `json:"code_version"`
	Created     time.Time `json:"created"` // zero: Seal sets it
}

// Layout is the extent of each dimension of parallelism, and the ZeRO stage.
type Layout struct {
	Data     int `json:"data"`
	Tensor   int `json:"tensor"`
	Pipeline int `json:"pipeline"`
	Context  int `json:"context"`
	Zero     int `json:"zero"`
}

func (s State) id() id { return id{s.Step, s.Generation, s.Attempt} }

// Digest is a BLAKE3-256 hash.
type Digest [32]byte

const digestPrefix = "blake3:"

// String is "blake3:" and 64 hexadecimal digits.
func (d Digest) String() string { return digestPrefix + hex.EncodeToString(d[:]) }

// MarshalText is String, for JSON.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is the inverse.
func (d *Digest) UnmarshalText(text []byte) error {
	digits, ok := strings.CutPrefix(string(text), digestPrefix)
	if !ok || len(digits) != hex.EncodedLen(len(d)) || digits != strings.ToLower(digits) {
		return fmt.Errorf("digest %.80q: want %q and 64 lower-case hexadecimal digits", text, digestPrefix)
	}
	_, err := hex.Decode(d[:], []byte(digits))
	return err
}
