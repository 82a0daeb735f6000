package telemetry

import (
	"os"
	"strconv"
	"strings"
)

// residentMemory is the memory of this process that is in RAM, in bytes, from the second field of /proc/self/statm; 0
// on a system without that file.
func residentMemory() int64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
