package storage

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// WriteFile sets the content of path, atomically and durably: whatever happens, path holds either what it held before
// or data, whole; after nil it holds data even if the machine loses power. It writes path+".tmp" and renames it. On an
// error the old content is still there, unless only the last step failed (the folder could not be synced): then it is
// the new content, which a power cut may still undo. One writer at a time may use a path.
func WriteFile(path string, data []byte) error { return WriteFileFS(OS, path, data) }

// WriteFileFS is WriteFile on any file system.
func WriteFileFS(fsys FS, path string, data []byte) error {
	tmp := path + ".tmp"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) { // left by a crash
		return err
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	if err := finish(f, data); err != nil {
		return errors.Join(err, fsys.Remove(tmp))
	}
	if err := fsys.Rename(tmp, path); err != nil {
		return errors.Join(err, fsys.Remove(tmp))
	}
	return fsys.SyncDir(filepath.Dir(path))
}

func finish(f File, data []byte) error {
	_, err := f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
