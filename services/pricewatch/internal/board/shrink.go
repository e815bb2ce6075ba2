package board

// Shrink doubts a market that lost more than half of its servers at once, until a second answer agrees. Its zero
// value has no doubt.
type Shrink struct {
	doubted bool
	held    int
}

// Believe says whether a listing of servers rows may follow one of before.
func (s *Shrink) Believe(servers, before int) bool {
	if 2*servers >= before || s.doubted && 2*servers >= s.held {
		s.doubted = false
		return true
	}
	s.doubted, s.held = true, servers
	return false
}
