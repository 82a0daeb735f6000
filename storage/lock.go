package storage

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// ErrLocked is the error of Lock when another process, or another holder in this one, has the lock.
var ErrLocked = errors.New("locked")

// FileLock is a lock held by this process. The kernel frees it when the process ends, however it ends.
type FileLock struct{ f *os.File }

// Lock takes the lock at path, a file that it makes if need be and leaves there, without waiting. The file says who
// holds it; if it is held, the error wraps ErrLocked and repeats that.
func Lock(path string) (*FileLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, fmt.Errorf("%s is %w by %s", path, ErrLocked, holder(f))
	}
	l := &FileLock{f}
	if err := l.sign(); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return l, nil
}

// File is what a process that inherits it holds the lock by, too: until it ends, whatever the holder does.
func (l *FileLock) File() *os.File { return l.f }

// Unlock gives the lock back, unless a process that inherited it is left.
func (l *FileLock) Unlock() error {
	return errors.Join(l.f.Truncate(0), l.f.Close())
}

func (l *FileLock) sign() error {
	host, err := os.Hostname()
	if err != nil {
		host = "an unnamed host"
	}
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err = fmt.Fprintf(l.f, "process %d on %s since %s\n", os.Getpid(), host, time.Now().Format(time.RFC3339))
	return err
}

// holder is what the lock file says. It is empty for the moment between the holder's flock and its signature.
func holder(f *os.File) string {
	b := make([]byte, 512)
	n, _ := f.ReadAt(b, 0)
	line, _, _ := strings.Cut(string(b[:n]), "\n")
	if line == "" {
		return "a process that has not yet written its name"
	}
	return line
}

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
