package collective

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Recorder is a flight recorder: it keeps the last operations of a rank, of all Groups that it watches. After a
// timeout the ranks of the Group show each other their recorders, over the Group's own connections, and the error says
// in a sentence who did not come, what that rank does instead, and for how long. Its methods may be called from any
// goroutine; a nil Recorder keeps nothing.
type Recorder struct {
	mu      sync.Mutex
	entries []entry
	n       uint64            // operations ever recorded; entry i is at (i−1) mod len
	last    map[string]uint64 // the last collective started, by Group
}

// State is how far an operation got.
type State string

// The states.
const (
	Queued  State = "queued"  // waits for its queue, or for an earlier batch of its Group
	Running State = "running" // waits for other ranks, or moves data
	Done    State = "done"
	Failed  State = "failed"
)

// Record is one operation as a Recorder shows it.
type Record struct {
	Group  string
	Op     string // with its size and reduction
	Seq    uint64 // as in Error
	Peer   int    // the other rank of a message, −1 for a collective
	Bytes  int64  // of the larger buffer
	DType  string // "" of a barrier
	State  State
	Start  time.Time // when it was started
	Began  time.Time // when it began to run; zero if it has not
	End    time.Time // when it ended; zero if it has not
	Caller string    // the line that started it

	ID   string // of the Group in the run
	Recv bool   // a message is received, not sent
}

// entry is a Record in the making.
type entry struct {
	mark       mark
	e          *engine
	desc       desc
	to         int
	recv       bool
	state      State
	start      time.Time
	began, end time.Time
	callers    [8]uintptr
}

// mark finds an operation's entry, 0 if there is none.
type mark uint64

// defaultRecords is what NewRecorder takes 0 for.
const defaultRecords = 512

// NewRecorder makes a Recorder of the last n operations, 0: 512.
func NewRecorder(n int) *Recorder {
	if n <= 0 {
		n = defaultRecords
	}
	return &Recorder{entries: make([]entry, n), last: map[string]uint64{}}
}

// Watch begins to record a Group of this package, and those that will be split from it. Call it before the Group's
// first operation. All Groups of a rank share a Recorder, so that it can say what the rank does instead; no two ranks
// do.
func (r *Recorder) Watch(g Group) { g.(interface{ watch(*Recorder) }).watch(r) }

func (e *engine) watch(r *Recorder) { e.recorder.Store(r) }

// started records the operation that t was planned for.
func (r *Recorder) started(e *engine, t *transfer, recv bool) mark {
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	x := &r.entries[(r.n-1)%uint64(len(r.entries))]
	*x = entry{mark: mark(r.n), e: e, desc: t.desc, to: t.to, recv: recv, state: Queued, start: time.Now()}
	runtime.Callers(3, x.callers[:])
	if t.to < 0 {
		r.last[e.id] = t.desc.seq
	}
	return x.mark
}

// update changes an entry that was not overwritten yet.
func (r *Recorder) update(m mark, f func(x *entry, now time.Time)) {
	if r == nil || m == 0 {
		return
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if x := &r.entries[uint64(m-1)%uint64(len(r.entries))]; x.mark == m {
		f(x, now)
	}
}

func (r *Recorder) began(m mark) {
	r.update(m, func(x *entry, now time.Time) { x.state, x.began = Running, now })
}

func (r *Recorder) ended(m mark) {
	r.update(m, func(x *entry, now time.Time) { x.state, x.end = Done, now })
}

// failed ends all operations of a Group.
func (r *Recorder) failed(e *engine) {
	if r == nil {
		return
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.entries {
		if x := &r.entries[i]; x.e == e && (x.state == Queued || x.state == Running) {
			x.state, x.end = Failed, now
		}
	}
}

// Records are the operations kept, oldest first.
func (r *Recorder) Records() []Record {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Record
	n := uint64(len(r.entries))
	for i := r.n - min(r.n, n); i < r.n; i++ {
		all = append(all, r.entries[i%n].record())
	}
	return all
}

func (x *entry) record() Record {
	op := x.desc.String()
	if x.recv {
		op = strings.Replace(op, kindSend.String(), kindRecv.String(), 1)
	}
	dtype := ""
	if x.desc.kind != kindBarrier {
		dtype = x.desc.dtype.String()
	}
	return Record{
		Group: x.e.o.Name, Op: op, Seq: x.desc.seq, Peer: x.to, Bytes: x.desc.bytes(), DType: dtype,
		State: x.state, Start: x.start, Began: x.began, End: x.end, Caller: callerOf(x.callers[:]),
		ID: x.e.id, Recv: x.recv,
	}
}

func (d desc) bytes() int64 {
	if d.kind == kindBarrier {
		return 0
	}
	return int64(d.count) * int64(d.dtype.Size())
}

// callerOf is the first line outside of this package.
func callerOf(pcs []uintptr) string {
	frames := runtime.CallersFrames(pcs)
	for {
		f, more := frames.Next()
		if f.File != "" && !strings.Contains(f.Function, "/collective.") {
			dir, file := filepath.Split(f.File)
			return fmt.Sprintf("%s:%d", filepath.Join(filepath.Base(dir), file), f.Line)
		}
		if !more {
			return "unknown"
		}
	}
}

// report is what other ranks get to see.
type report struct {
	Now     time.Time
	Last    map[string]uint64
	Records []Record
}

// reported is how many records a report has.
const reported = 64

// report encodes the newest records.
func (r *Recorder) report() ([]byte, error) {
	if r == nil {
		return nil, errNoRecorder
	}
	records := r.Records()
	r.mu.Lock()
	rep := report{Now: time.Now(), Last: r.last, Records: records[max(0, len(records)-reported):]}
	b, err := json.Marshal(rep)
	r.mu.Unlock()
	if err == nil && len(b) > frameLimits[frameAnswer]-8 {
		err = errors.New("the report is too long")
	}
	return b, err
}

func parseReport(b []byte) (report, error) {
	var rep report
	if err := json.Unmarshal(b, &rep); err != nil {
		return report{}, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	return rep, nil
}
