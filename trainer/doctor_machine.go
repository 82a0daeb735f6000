package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/herdtrain/herd/tensor/cpu"
)

const (
	lowMemory    = 1 << 30  // bytes that are free: less is tight for the smallest presets
	lowDisk      = 10 << 30 // bytes
	noDisk       = 256 << 20
	slowDisk     = 50e6 // bytes a second
	fewFiles     = 1024 // open files
	diskSample   = 64 << 20
	diskTime     = 2 * time.Second        // for the sample; a slow disk writes less of it
	peakDuration = 200 * time.Millisecond // of each measurement of the processor
)

// machineChecks are those that need no job; dir is on the disk to look at.
func machineChecks(dir string) []check {
	return []check{
		{"build", checkBuild},
		{"processor", checkProcessor},
		{"kernels", checkKernels},
		{"peak", checkPeak},
		{"memory", checkMemory},
		{"disk", func(ctx context.Context) []finding { return checkDisk(ctx, dir) }},
		{"open files", checkOpenFiles},
	}
}

func checkBuild(context.Context) []finding {
	b := readBuildInfo()
	return judge("build", b.CGO, statusWarning, b.String(),
		"built without C: many times slower; install gcc and build again with CGO_ENABLED=1")
}

// checkProcessor names the processor and what of its instructions matters here.
func checkProcessor(context.Context) []finding {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return judge("processor", true, "", fmt.Sprintf("%s, %d threads", runtime.GOARCH, runtime.NumCPU()), "")
	}
	model, flags := "unknown", map[string]bool{}
	for line := range strings.Lines(string(info)) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "model name":
			model = strings.TrimSpace(value)
		case "flags", "Features":
			for f := range strings.FieldsSeq(value) {
				flags[f] = true
			}
		}
	}
	var has []string
	for _, f := range []string{"avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve"} {
		if flags[f] {
			has = append(has, f)
		}
	}
	found := fmt.Sprintf("%s, %d threads of which this process may use %d; %s",
		model, runtime.NumCPU(), runtime.GOMAXPROCS(0), cmp.Or(strings.Join(has, " "), "no vector instructions used here"))
	return judge("processor", true, "", found, "")
}

// checkKernels says which kernels a job will use, and why not faster ones.
func checkKernels(context.Context) []finding {
	chosen, asked := "", os.Getenv(cpu.KernelsEnv)
	var lacking []string
	for _, k := range cpu.Kernels() {
		switch {
		case !k.Available:
			lacking = append(lacking, fmt.Sprintf("%s: %s", k.Name, k.Why))
		case chosen == "" && (asked == "" || asked == k.Name):
			chosen = k.Name
		}
	}
	if chosen == "" {
		err := fmt.Errorf("%s=%s: not available (%s)", cpu.KernelsEnv, asked, strings.Join(lacking, "; "))
		return failure("kernels", err, "unset "+cpu.KernelsEnv)
	}
	found := chosen + ", the fastest that runs here"
	if asked != "" {
		found = fmt.Sprintf("%s, because %s asks for it", chosen, cpu.KernelsEnv)
	}
	if len(lacking) > 0 {
		found += "; not available: " + strings.Join(lacking, "; ")
	}
	return judge("kernels", true, "", found, "")
}

// checkPeak measures what MFU is a fraction of.
func checkPeak(context.Context) []finding {
	kernels, threads := os.Getenv(cpu.KernelsEnv), runtime.GOMAXPROCS(0)
	one := cpu.PeakFLOPS(kernels, 1, peakDuration)
	if one == 0 {
		return nil // checkKernels tells
	}
	all := cpu.PeakFLOPS(kernels, threads, peakDuration)
	found := fmt.Sprintf("%.1f GFLOP/s fp32 on one thread, %.1f on %d", one/1e9, all/1e9, threads)
	return judge("peak", all >= 0.7*float64(threads)*one, statusWarning, found,
		"the threads share cores, or other programs use them: expect step times to vary")
}

func checkMemory(context.Context) []finding {
	total, available, limit, err := memory()
	if err != nil {
		return judge("memory", false, statusWarning, err.Error(), "make /proc visible to the process")
	}
	found := fmt.Sprintf("%s available of %s", sizeText(available), sizeText(total))
	if limit < total {
		found += ", limited by the control group to " + sizeText(limit)
	}
	return judge("memory", min(available, limit) >= lowMemory, statusWarning, found,
		"end other programs, or use a larger machine")
}

// memory is the machine's memory, what of it is free or can be freed, and the limit of this process's control group
// (of version 2 or 1), or total without one. In bytes.
func memory() (total, available, limit int64, err error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0, 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(lines.Text(), "MemTotal: %d kB", &kib); n == 1 {
			total = kib << 10
		} else if n, _ := fmt.Sscanf(lines.Text(), "MemAvailable: %d kB", &kib); n == 1 {
			available = kib << 10
		}
	}
	if total == 0 || available == 0 {
		return 0, 0, 0, errors.New("/proc/meminfo holds no MemTotal or no MemAvailable")
	}
	limit = total
	groups, _ := os.ReadFile("/proc/self/cgroup") // without it there is no limit to find
	for line := range strings.Lines(string(groups)) {
		id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		switch {
		case id == "0":
			limit = min(limit, groupLimit("/sys/fs/cgroup", path, "memory.max"))
		case controllers == "memory":
			limit = min(limit, groupLimit("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"))
		}
	}
	return total, available, limit, nil
}

// groupLimit is the smallest limit of a control group and those above it. In a container, whose group's path may not
// be mounted, the mount's root is the container's group.
func groupLimit(mount, path, file string) int64 {
	limit := int64(math.MaxInt64)
	for dir := filepath.Join("/", path); ; dir = filepath.Dir(dir) {
		if text, err := os.ReadFile(filepath.Join(mount, dir, file)); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil { // else "max"
				limit = min(limit, n)
			}
		}
		if dir == "/" {
			return limit
		}
	}
}

// checkDisk looks at the room under dir, and how fast a synced file gets there: a checkpoint is one.
func checkDisk(ctx context.Context, dir string) []finding {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return failure("disk", fmt.Errorf("%s: %w", dir, err), "make the directory, or give another --dir")
	}
	free := int64(fs.Bavail) * int64(fs.Bsize)
	if free < noDisk {
		return failure("disk", fmt.Errorf("%s: %s free", dir, sizeText(free)), "free some space")
	}
	speed, err := diskSpeed(ctx, dir)
	if err != nil {
		return failure("disk", err, "make the directory writable, or give another --dir")
	}
	found := fmt.Sprintf("%s: %s free, writes and syncs %.0f MB/s", dir, sizeText(free), speed/1e6)
	return judge("disk", free >= lowDisk && speed >= slowDisk, statusWarning, found,
		fmt.Sprintf("saves may stall or fail: have %s free on a disk that takes %.0f MB/s", sizeText(lowDisk), slowDisk/1e6))
}

// diskSpeed writes diskSample bytes, or as many as fit diskTime, to a temporary file in dir and syncs it. The result is
// in bytes a second.
func diskSpeed(ctx context.Context, dir string) (speed float64, err error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i * i >> 8) // not zeros, which some disks do not store
	}
	start, written := time.Now(), 0
	for written < diskSample && time.Since(start) < diskTime && ctx.Err() == nil {
		n, err := f.Write(block)
		if err != nil {
			return 0, err
		}
		written += n
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	return float64(written) / time.Since(start).Seconds(), nil
}

func checkOpenFiles(context.Context) []finding {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return failure("open files", err, "")
	}
	return judge("open files", limit.Cur >= fewFiles, statusWarning, fmt.Sprintf("at most %d", limit.Cur),
		fmt.Sprintf("raise it: ulimit -n %d; a dataset keeps two files open per shard", fewFiles))
}

// sizeText is n bytes in the largest binary unit that leaves at least one.
func sizeText(n int64) string {
	x, unit := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		if x < 1024 {
			break
		}
		x, unit = x/1024, next
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", x, unit)
}
