// Package lint holds no code: its tests are the rules of the source tree that the compiler does not know. They say
// which package may import which, who alone owns a native library, how packages are described, named and sized, and
// what go.mod may hold. 'make lint' runs them, and so does 'make test'. They are a package of their own, and not of the
// module's root, so that the root holds documents and folders only.
package lint
