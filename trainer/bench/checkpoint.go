package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/storage"
	"github.com/herdtrain/herd/tensor"
)

// CheckpointReport is how fast checkpoints are written to a disk and read back, beside a plain file of as many bytes.
// Rates are in MB/s. A write ends with the sync of file and folder; what is read was dropped from the page cache.
type CheckpointReport struct {
	Dir       string  `json:"dir"`
	Bytes     int64   `json:"bytes"`
	Rounds    int     `json:"rounds"`
	Write     Spread  `json:"write"` // of a plain file
	Save      Spread  `json:"save"`
	SaveShare float64 `json:"save_share"` // median of the rounds: of the plain file's rate in the same round
	Read      Spread  `json:"read"`
	Load      Spread  `json:"load"`
	LoadShare float64 `json:"load_share"`
}

// benchTensors is how many tensors a measured checkpoint has.
const benchTensors = 48

// Checkpoint measures checkpoints of about so many bytes below dir, in rounds in which all four take turns. It removes
// what it wrote.
func Checkpoint(ctx context.Context, dir string, bytes int64, rounds int) (report *CheckpointReport, err error) {
	rows := int64(bytes / benchTensors / 4096)
	if rows < 1 || rounds < 1 {
		return nil, fmt.Errorf("checkpoint: %d bytes in %d rounds, want at least %d bytes and 1 round", bytes, rounds,
			benchTensors*4096)
	}
	work, err := os.MkdirTemp(dir, "bench-checkpoint-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	d := disk{dir: work, data: make([]byte, benchTensors*rows*4096)}
	_, _ = rand.NewChaCha8([32]byte{}).Read(d.data)
	for i := range benchTensors {
		d.tensors = append(d.tensors, checkpoint.Tensor{
			Name: fmt.Sprintf("layers.%d", i), DType: tensor.F32, Shape: []int64{rows, 1024},
			Data: d.data[int64(i)*rows*4096:][:rows*4096],
		})
	}
	tasks := []func(context.Context) error{d.write, d.save, d.read, d.load}
	seconds := make([][]float64, len(tasks))
	for range rounds {
		for i, task := range tasks {
			begin := time.Now()
			if err := task(ctx); err != nil {
				return nil, fmt.Errorf("checkpoint: %w", err)
			}
			seconds[i] = append(seconds[i], time.Since(begin).Seconds())
			if err := d.forget(); err != nil {
				return nil, fmt.Errorf("checkpoint: %w", err)
			}
		}
		if err := d.clear(); err != nil {
			return nil, fmt.Errorf("checkpoint: %w", err)
		}
	}
	rate := func(i int) Spread { return newSpread(seconds[i]).rate(float64(len(d.data)) / 1e6) }
	share := func(i, plain int) float64 {
		shares := make([]float64, rounds)
		for r := range shares {
			shares[r] = seconds[plain][r] / seconds[i][r]
		}
		return newSpread(shares).Median
	}
	return &CheckpointReport{
		Dir: dir, Bytes: int64(len(d.data)), Rounds: rounds, Write: rate(0), Save: rate(1), SaveShare: share(1, 0),
		Read: rate(2), Load: rate(3), LoadShare: share(3, 2),
	}, nil
}

// disk is where a checkpoint, and a plain file, of the same data are written and read.
type disk struct {
	dir     string
	data    []byte
	tensors []checkpoint.Tensor
	ref     checkpoint.Ref
}

const plainPiece = 1 << 20

func (d *disk) plain() string { return filepath.Join(d.dir, "plain") }
func (d *disk) saved() string { return filepath.Join(d.dir, d.ref.Name) }

// write writes the plain file, as a copy does.
func (d *disk) write(ctx context.Context) error {
	f, err := os.Create(d.plain())
	if err != nil {
		return err
	}
	for at := 0; at < len(d.data) && err == nil; at += plainPiece {
		_, err = f.Write(d.data[at:min(at+plainPiece, len(d.data))])
		err = cmp.Or(err, ctx.Err())
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (d *disk) save(ctx context.Context) (err error) {
	d.ref, err = checkpoint.Save(ctx, storage.OS, d.dir, checkpoint.State{Step: 1, Generation: 1}, d.tensors)
	return err
}

func (d *disk) read(ctx context.Context) error {
	f, err := os.Open(d.plain())
	if err != nil {
		return err
	}
	defer f.Close()
	for at := 0; at < len(d.data) && err == nil; at += plainPiece {
		_, err = io.ReadFull(f, d.data[at:min(at+plainPiece, len(d.data))])
		err = cmp.Or(err, ctx.Err())
	}
	return err
}

func (d *disk) load(ctx context.Context) error {
	c, err := checkpoint.Open(ctx, storage.OS, d.saved())
	for _, t := range d.tensors {
		if err == nil {
			err = c.Read(ctx, t.Name, t.Data)
		}
	}
	return err
}

// files are those that were written.
func (d *disk) files() ([]string, error) {
	saved, err := filepath.Glob(filepath.Join(d.dir, "step-*", "*"))
	return append(saved, d.plain()), err
}

// forget drops the files from the page cache.
func (d *disk) forget() error {
	names, err := d.files()
	for _, name := range names {
		f, e := os.Open(name)
		if e != nil {
			return errors.Join(err, e)
		}
		err = errors.Join(err, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	}
	return err
}

func (d *disk) clear() error { return errors.Join(os.RemoveAll(d.saved()), os.Remove(d.plain())) }

// Print writes a table.
func (r *CheckpointReport) Print(w io.Writer) error {
	fmt.Fprintf(w, "checkpoints of %.1f MB below %s, %d rounds; MB/s\n\n", float64(r.Bytes)/1e6, r.Dir, r.Rounds)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "\tMEDIAN\tMIN\tMAX\tSHARE")
	row := func(name string, s Spread, share string) {
		fmt.Fprintf(tw, "%s\t%.0f\t%.0f\t%.0f\t%s\n", name, s.Median, s.Min, s.Max, share)
	}
	row("write a plain file, sync", r.Write, "")
	row("save", r.Save, fmt.Sprintf("%.0f %%", 100*r.SaveShare))
	row("read a plain file", r.Read, "")
	row("load, verified", r.Load, fmt.Sprintf("%.0f %%", 100*r.LoadShare))
	return tw.Flush()
}
