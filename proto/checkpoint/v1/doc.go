// Package checkpointv1 is the generated code of the records in a checkpoint's manifest and index files, version 1.
// docs/format/checkpoint.md describes the files.
package checkpointv1
