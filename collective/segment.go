package collective

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A segment is the memory that two ranks of a host share, in a memfd made for the pair: each side's word of sleep, on
// cache lines of their own, then the ring from the dialer to the listener and the one back. Its size is sealed, so
// that neither side can take pages from under the other.
const (
	segmentRings = 2 * 64
	seals        = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
)

var segmentBytes = segmentRings + 2*ringBytes(blockBytes)

// sendSegment makes a segment and hands it to the other side.
func sendSegment(conn *net.UnixConn) ([]byte, error) {
	fd, err := unix.MemfdCreate("herd", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(segmentBytes)); err != nil {
		return nil, fmt.Errorf("size a segment of %d bytes: %w", segmentBytes, err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal a segment: %w", err)
	}
	size := binary.LittleEndian.AppendUint64(nil, uint64(segmentBytes))
	if _, _, err := conn.WriteMsgUnix(frame(frameSegment, size), unix.UnixRights(fd), nil); err != nil {
		return nil, fmt.Errorf("pass a segment: %w", err)
	}
	return mapSegment(fd)
}

// recvSegment takes the segment that the other side made.
func recvSegment(conn *net.UnixConn) ([]byte, error) {
	want := frame(frameSegment, binary.LittleEndian.AppendUint64(nil, uint64(segmentBytes)))
	got, oob := make([]byte, len(want)), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(got, oob)
	if err != nil {
		return nil, fmt.Errorf("take a segment: %w", err)
	}
	var fds []int
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err == nil && len(messages) == 1 {
		fds, err = unix.ParseUnixRights(&messages[0])
	}
	for _, fd := range fds {
		defer unix.Close(fd)
		unix.CloseOnExec(fd)
	}
	if err != nil || len(fds) != 1 || string(got[:n]) != string(want) {
		return nil, fmt.Errorf("%w: %d bytes and %d descriptors instead of a segment (%v)", ErrFrame, n, len(fds), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fds[0], &st); err != nil {
		return nil, fmt.Errorf("look at a segment: %w", err)
	}
	sealed, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GET_SEALS, 0)
	if err != nil || sealed&seals != seals || st.Size != int64(segmentBytes) {
		return nil, fmt.Errorf("%w: a segment of %d bytes with seals %#x (%v), want %d bytes and %#x",
			ErrFrame, st.Size, sealed, err, segmentBytes, seals)
	}
	return mapSegment(fds[0])
}

func mapSegment(fd int) ([]byte, error) {
	mem, err := unix.Mmap(fd, 0, segmentBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map a segment: %w", err)
	}
	return mem, nil
}

// segmentLink is the link over a segment.
func segmentLink(mem []byte, dialer bool, wake func()) *link {
	base := unsafe.Pointer(unsafe.SliceData(mem))
	words := [2]*atomic.Uint32{(*atomic.Uint32)(base), (*atomic.Uint32)(unsafe.Add(base, 64))}
	rings := [2]unsafe.Pointer{
		unsafe.Add(base, segmentRings), unsafe.Add(base, segmentRings+ringBytes(blockBytes)),
	}
	mine, other := 1, 0
	if dialer {
		mine, other = 0, 1
	}
	return &link{
		out: newRing(rings[mine], blockBytes, nil), in: newRing(rings[other], blockBytes, nil),
		asleep: words[mine], other: sleeper{words[other], wake},
	}
}
