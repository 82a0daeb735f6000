//go:build !race

package collective

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

var vectors = cpu.X86.HasAVX2

// addFloat32 sets dst to a + b; n is a multiple of 32 and not 0.
//
//go:noescape
func addFloat32(dst, a, b *float32, n int)

// streamBytes copies past the caches; dst is aligned to 32 bytes, n a multiple of 128 and not 0.
//
//go:noescape
func streamBytes(dst, src *byte, n int)

// addVectors does the beginning of a sum and returns its length. All have one length.
func addVectors(dst, a, b []float32) int {
	n := len(dst) &^ 31
	if !vectors || n == 0 {
		return 0
	}
	addFloat32(&dst[0], &a[0], &b[0], n)
	return n
}

// stream copies src to dst, which has its length and is too large to be of use in a cache.
func stream(dst, src []byte) {
	if !vectors || len(dst) < 4096 {
		copy(dst, src)
		return
	}
	head := int(-uintptr(unsafe.Pointer(unsafe.SliceData(dst))) & 31)
	copy(dst[:head], src)
	n := (len(dst) - head) &^ 127
	streamBytes(&dst[head], &src[head], n)
	copy(dst[head+n:], src[head+n:])
}
