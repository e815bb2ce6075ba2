package auth

import (
	"crypto/subtle"
	"strings"
)

// releasePrefix begins the token by which a rental may end its own order, and nothing else.
const releasePrefix = "rel_"

// ReleaseToken is the token of one order. It is derived, so that it is stored nowhere.
func ReleaseToken(box Deriver, client, order string) string {
	return releasePrefix + client + "." + box.Password("release", client, order)
}

// Release is the client whose order a token may end; false for any other text.
func Release(box Deriver, token, order string) (client string, ok bool) {
	rest, ok := strings.CutPrefix(token, releasePrefix)
	client, _, cut := strings.Cut(rest, ".")
	if !ok || !cut || client == "" || order == "" {
		return "", false
	}
	return client, subtle.ConstantTimeCompare([]byte(token), []byte(ReleaseToken(box, client, order))) == 1
}
