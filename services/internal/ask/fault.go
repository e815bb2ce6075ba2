package ask

import (
	"fmt"

	"github.com/renthook/renthook/pkg/fault"
)

// Reasons of the faults of this package.
const (
	// ReasonJSON: the body is not what it should be as JSON, whatever it says.
	ReasonJSON = "INVALID_JSON"
	// ReasonArgument: a member has a value that makes no sense.
	ReasonArgument = "INVALID_ARGUMENT"
	// ReasonUnknown: a member that does not exist.
	ReasonUnknown = "UNKNOWN_MEMBER"
)

func invalid(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, ReasonArgument, format, args...)
}

func badJSON(err error) *fault.Error {
	return fault.New(fault.Invalid, ReasonJSON, "%v", err).Wrap(err)
}

func unknown(name, where string, known []string) *fault.Error {
	text := fmt.Sprintf("unknown member %q", name)
	if where != "" {
		text += " in " + where
	}
	if near := nearest(name, known); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return fault.New(fault.Invalid, ReasonUnknown, "%s", text)
}
