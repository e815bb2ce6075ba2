package deliver

import "hash/maphash"

// mostSettled is how many settled deliveries of a lane are remembered. A consumer that is replayed further back
// than that sends again, with the same webhook-id.
const mostSettled = 16 << 10

// recent remembers the last ids it was given, by a 64-bit hash of each.
type recent struct {
	seed maphash.Seed
	most int
	ring []uint64
	at   int
	in   map[uint64]struct{}
}

func newRecent(most int) *recent {
	return &recent{seed: maphash.MakeSeed(), most: most, in: map[uint64]struct{}{}}
}

func (r *recent) has(id string) bool {
	_, ok := r.in[maphash.String(r.seed, id)]
	return ok
}

func (r *recent) add(id string) {
	h := maphash.String(r.seed, id)
	if _, ok := r.in[h]; ok {
		return
	}
	r.in[h] = struct{}{}
	if len(r.ring) < r.most {
		r.ring = append(r.ring, h)
		return
	}
	delete(r.in, r.ring[r.at])
	r.ring[r.at] = h
	r.at = (r.at + 1) % r.most
}
