package run

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/herdtrain/herd/checkpoint"
	"github.com/herdtrain/herd/trainer/config"
)

// order is what the leader tells the ranks to do before the first step.
type order struct {
	Load                  string // a checkpoint directory to read, if not "": another order follows
	Fresh                 bool   // begin with initial weights, else with those that were read last,
	Step, Tokens, Applied int64  // and after so many steps, tokens and updates
	Err                   string // give up, if not ""
}

// verdict is how a rank followed an order to load.
type verdict struct {
	Err     string
	Damaged bool // the checkpoint is gone or damaged: another one may do
}

// restore gives all workers their weights: of the checkpoint that Options.Resume asks for, or fresh ones. The leader
// decides.
func (w *worker) restore(ctx context.Context) error {
	var o order
	var err error
	if w.leads() {
		if o, err = w.lead(ctx); err != nil {
			o = order{Err: fmt.Sprintf("rank 0 found nothing to begin with: %v", err)}
		}
		err = errors.Join(err, tell(ctx, w.world, &o))
	} else {
		o, err = w.follow(ctx)
	}
	if err != nil {
		return err
	}
	if o.Fresh {
		if err := w.opt.Initialize(ctx, w.dev, w.q, w.job.Job.Seed); err != nil {
			return err
		}
		if w.job.Init.From != "" {
			if err := w.initFrom(ctx); err != nil {
				return err
			}
		}
	}
	w.step, w.tokens, w.applied = o.Step, o.Tokens, o.Applied
	return w.deriveWeights(ctx)
}

// follow carries out the leader's orders up to the last one, which it returns.
func (w *worker) follow(ctx context.Context) (order, error) {
	for {
		var o order
		switch err := tell(ctx, w.world, &o); {
		case err != nil:
			return o, err
		case o.Err != "":
			return o, errors.New(o.Err)
		case o.Load == "":
			return o, nil
		}
		c, err := checkpoint.Open(ctx, w.o.FS, o.Load)
		if err == nil {
			err = w.load(ctx, c)
		}
		_ = w.agree(ctx, err) // the leader decides what comes of a failure
	}
}

// agree tells every rank whether all could load a checkpoint, and if not why.
func (w *worker) agree(ctx context.Context, err error) error {
	var mine verdict
	if err != nil {
		mine = verdict{err.Error(), errors.Is(err, checkpoint.ErrNotFound) || errors.Is(err, checkpoint.ErrCorrupt)}
	}
	all, e := gatherJSON(ctx, w.world, mine)
	if e != nil || err != nil {
		return errors.Join(err, e)
	}
	for i, v := range all {
		switch {
		case v.Damaged:
			return fmt.Errorf("rank %d: %s: %w", i, v.Err, checkpoint.ErrCorrupt)
		case v.Err != "":
			return fmt.Errorf("rank %d: %s", i, v.Err)
		}
	}
	return nil
}

// lead finds what all ranks can begin with, and returns the last order.
func (w *worker) lead(ctx context.Context) (order, error) {
	head, err := w.head(ctx)
	if errors.Is(err, checkpoint.ErrNone) {
		from := fmt.Sprintf("from seed %d", w.job.Job.Seed)
		if w.job.Init.From != "" {
			from = "of " + w.job.Init.From
		}
		w.event("starting fresh: %d parameters %s", w.job.Model.Config().Parameters(), from)
		return order{Fresh: true}, nil
	}
	if err != nil {
		return order{}, err
	}
	root := filepath.Dir(head.dir)
	var changes []config.Change
	c, rejected, err := checkpoint.Resolve(ctx, w.o.FS, root, head.ref, func(c *checkpoint.Checkpoint) (err error) {
		if changes, err = w.compare(c.Dir(), c.State()); err != nil {
			return err
		}
		if err := tell(ctx, w.world, &order{Load: c.Dir()}); err != nil {
			return err
		}
		return w.agree(ctx, w.load(ctx, c))
	})
	for _, r := range rejected {
		w.event("checkpoint %s was passed over: %v", r.Name, r.Err)
	}
	if err != nil {
		return order{}, err
	}
	for _, ch := range changes {
		w.event("changed since the checkpoint: %v", ch)
	}
	st := c.State()
	if root == w.saver.root {
		w.saver.parent = c.Ref()
	}
	if st.Step < w.job.Train.Steps {
		w.event("continuing after step %d from %s (generation %d)", st.Step, c.Dir(), w.generation)
	}
	return order{Step: st.Step, Tokens: st.Tokens, Applied: st.OptimizerStep}, nil
}

// start is a checkpoint to begin from.
type start struct {
	ref checkpoint.Ref
	dir string
}

// head is the checkpoint that Options.Resume asks for; ErrNone: begin fresh.
func (w *worker) head(ctx context.Context) (start, error) {
	ref, err := w.saver.commit.Latest(ctx)
	switch w.o.Resume {
	case "", "auto":
		if errors.Is(err, checkpoint.ErrNone) && w.saver.mirror != nil {
			ref, err = w.fromMirror(ctx)
		}
		return start{ref, filepath.Join(w.saver.root, ref.Name)}, err
	case "none":
		if err == nil {
			err = fmt.Errorf("--resume none: %s holds a run already (%s); choose another job.output", w.job.Job.Output, ref.Name)
		}
		return start{}, err
	}
	root, dir, err := checkpoint.Locate(w.o.FS, filepath.Clean(w.o.Resume))
	if err != nil {
		return start{}, fmt.Errorf("--resume: %w", err)
	}
	if dir == "" { // a whole run: its newest
		if ref, err = (checkpoint.FileCommitter{FS: w.o.FS, Root: root}).Latest(ctx); err != nil {
			return start{}, fmt.Errorf("--resume %s: %w", w.o.Resume, err)
		}
		return start{ref, filepath.Join(root, ref.Name)}, nil
	}
	c, err := checkpoint.Open(ctx, w.o.FS, dir)
	if err != nil {
		return start{}, fmt.Errorf("--resume: %w", err)
	}
	return start{c.Ref(), dir}, nil
}

// fromMirror copies the mirror's latest checkpoint, if it is of this job. ErrNone: it has none.
func (w *worker) fromMirror(ctx context.Context) (checkpoint.Ref, error) {
	m := w.saver.mirror
	head, err := checkpoint.StoreCommitter{Store: m.to}.Latest(ctx)
	var st checkpoint.State
	if err == nil {
		st, err = checkpoint.StateIn(ctx, m.to, head.Name)
	}
	if err == nil {
		_, err = w.compare(m.at+"/"+head.Name, st)
	}
	if err == nil {
		w.event("%s holds no checkpoint: copying %s from %s", w.job.Job.Output, head.Name, m.at)
		head, err = m.restore(ctx, head, w.saver.commit)
	}
	if err != nil && !errors.Is(err, checkpoint.ErrNone) {
		err = fmt.Errorf("checkpoint.mirror %s: %w", m.at, err)
	}
	return head, err
}

// compare refuses a checkpoint of another job, and lists what changed that may. at is where the checkpoint is.
func (w *worker) compare(at string, st checkpoint.State) ([]config.Change, error) {
	saved, err := config.Parse(at+" (its job file)", []byte(st.Config), nil)
	if err != nil {
		return nil, err
	}
	changes, err := config.CompareForResume(saved, w.job)
	if err != nil {
		return nil, fmt.Errorf("the job is not the one that saved it:\n%w", err)
	}
	if base := w.saver.base; st.TokenizerDigest != base.TokenizerDigest {
		return nil, fmt.Errorf("it was trained with tokenizer %s, %s is %s", st.TokenizerDigest, w.job.Tokenizer.Path,
			base.TokenizerDigest)
	} else if st.DatasetDigest != base.DatasetDigest {
		return nil, fmt.Errorf("it was trained on other data: the digest of data.train was %s, now it is %s",
			st.DatasetDigest, base.DatasetDigest)
	}
	return changes, nil
}
