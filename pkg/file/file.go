// Package file replaces files whole.
//
// It guarantees that whoever reads a file finds the old content or the new, never a part of it, and that the new one is on
// disk when Replace returns: a crash at any moment leaves one of the two. It refuses nothing and locks nothing: of several
// that replace at once, the last one stands.
package file

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Replace gives a file new content, readable by its owner alone. Its directory must exist.
func Replace(path string, content []byte) error {
	if err := replace(path, content); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func replace(path string, content []byte) error {
	dir := filepath.Dir(path)
	// A name of its own: two that replace at once must not write into one file.
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

// syncDir puts the new name on disk: the content alone would be lost with the old name.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
