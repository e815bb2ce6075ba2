package journal

import "time"

// ImpatientlyOpen is Open with less patience for one attempt, so that tests of lost answers take less long.
func ImpatientlyOpen(j *Journal) *Journal {
	return &Journal{js: j.js, stream: j.stream, attempt: time.Second}
}
