//go:build !cgo

package cpu

// compiledKernels are the kernels written in C, none of which is in this build.
var compiledKernels = func() []compiled {
	var list []compiled
	for _, name := range []string{"amx", "avx512", "avx2", "portable"} {
		why := "this program was built without cgo (CGO_ENABLED=0 or no C compiler)"
		list = append(list, compiled{Kernel: Kernel{Name: name, Why: why}})
	}
	return list
}()

// emulatedKernels are not in this build.
var emulatedKernels []compiled
