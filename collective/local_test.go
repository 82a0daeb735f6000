package collective_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/herdtrain/herd/collective"
	"github.com/herdtrain/herd/collective/collectivetest"
)

func TestMain(m *testing.M) {
	benchChild()
	collectivetest.Main()
	goleak.VerifyTestMain(m)
}

func TestLocal(t *testing.T) {
	collectivetest.Run(t, func(_ testing.TB, n int, o collective.Options) []collective.Group {
		return collective.NewLocal(n, o)
	})
}
