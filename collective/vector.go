//go:build !amd64 || race

package collective

// The race detector does not see what assembly does, and other processors have none here: see vector_amd64.go.

func addVectors(_, _, _ []float32) int { return 0 }

func stream(dst, src []byte) { copy(dst, src) }
