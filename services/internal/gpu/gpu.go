// Package gpu knows the names of GPU models: what a market prints, what a person writes, and the slug that both
// mean. It guarantees that a slug matches [a-z0-9-]+ and so can stand in a subject, that spellings of one model share
// one slug and one display name, and that a variant (Laptop, Ti, SUPER, D, memory size, form factor) is never taken
// for its parent. It refuses to guess: a name it does not know keeps a slug of its own.
package gpu

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
)

// Mixed is the slug of servers whose GPUs differ. It is no model and matches none.
const Mixed = "mixed"

// maxSlug bounds a slug; a subject's token holds 128 characters.
const maxSlug = 64

// Model is one GPU model as a market names it.
type Model struct {
	// Slug identifies the model: "rtx-4090". Empty only for a name without any content.
	Slug string
	// Name is for people, without vendor and count: "RTX 4090". Equal slugs have equal names.
	Name string
	// Full is the market's own text for one GPU: "NVIDIA GeForce RTX 4090".
	Full string
	// Count is how many the text says: 1 when it says nothing.
	Count int
}

// Parse reads a market's text: "8x NVIDIA GeForce RTX 3090", " RTX 3090", "6x Mixed GPUs".
func Parse(text string) Model {
	count, full := splitCount(text)
	words := canonical(tokens(full))
	m := Model{Slug: slug(words, full), Name: display(words), Full: full, Count: count}
	if m.Slug == "" {
		return Model{Full: full, Count: count}
	}
	if m.Slug == Mixed {
		m.Name = "Mixed"
	}
	if m.Name == "" {
		m.Name = full
	}
	return m
}

// Slug turns what a person wrote ("RTX 4090", "rtx4090", "4090", "2x GeForce RTX 4090") into the model's slug. It is
// empty only for a text without any content.
func Slug(asked string) string {
	_, full := splitCount(asked)
	return slug(canonical(tokens(full)), full)
}

var counted = regexp.MustCompile(`^(\d{1,3})\s*[xX×]\s*(\S.*)$`)

func splitCount(text string) (int, string) {
	full := strings.Join(strings.Fields(text), " ")
	m := counted.FindStringSubmatch(full)
	if m == nil {
		return 1, full
	}
	n, err := strconv.Atoi(m[1])
	if err != nil || n < 1 {
		return 1, m[2]
	}
	return n, m[2]
}

var marks = strings.NewReplacer("(r)", " ", "(tm)", " ", "®", " ", "™", " ", "+", " plus ")

// tokens are the lower-case words of a name, with what is often glued together taken apart.
func tokens(full string) []string {
	words := strings.FieldsFunc(marks.Replace(strings.ToLower(full)), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	out := make([]string, 0, len(words)+2)
	for _, w := range words {
		out = append(out, unglue(w)...)
	}
	return out
}

var (
	// family: "rtx4090", "gtx1080ti", "rtxa6000", "cmp30hx", "titanrtx".
	family = regexp.MustCompile(`^(rtx|gtx|rx|gt|cmp|quadro|tesla|titan|nvidia|geforce|radeon|pro)((?:[a-z]{0,3}\d|rtx|xp$).*)$`)
	// suffixed: "3060ti", "4090d", "7900xtx", "6000ada", "4070tisuper".
	suffixed = regexp.MustCompile(`^(\d{3,4})(ti|super|xtx|xt|gre|d|ada|laptop|mobile)(.*)$`)
	// formed: the market drops hyphens, "V100-SXM2-32GB" is printed "V100SXM232GB".
	formed = regexp.MustCompile(`^([a-z]{1,2}\d{2,3})(sxm[2-6]?|pcie|nvl)(\d+gb)?$`)
	// mining: "P102-100" is printed "P102100".
	mining = regexp.MustCompile(`^(p10\d)(\d{3})$`)
	memory = regexp.MustCompile(`^(\d+)(?:g|gb|gib)$`)
	form   = regexp.MustCompile(`^(?:sxm\d?|pcie|nvl|hbm\d?e?)$`)
)

func unglue(w string) []string {
	if len(w) > 32 {
		return []string{w}
	}
	if m := family.FindStringSubmatch(w); m != nil {
		return append([]string{m[1]}, unglue(m[2])...)
	}
	if m := suffixed.FindStringSubmatch(w); m != nil {
		return append([]string{m[1]}, unglueRest(m[2]+m[3])...)
	}
	if m := formed.FindStringSubmatch(w); m != nil {
		out := []string{m[1], m[2]}
		if m[3] != "" {
			out = append(out, m[3])
		}
		return out
	}
	if m := mining.FindStringSubmatch(w); m != nil {
		return []string{m[1], m[2]}
	}
	if m := memory.FindStringSubmatch(w); m != nil {
		return []string{m[1] + "gb"}
	}
	return []string{w}
}

// unglueRest takes what follows a number apart: "tisuper", "ti16gb".
func unglueRest(s string) []string {
	for _, p := range []string{"super", "laptop", "mobile", "xtx", "xt", "gre", "ada", "ti", "d"} {
		rest, ok := strings.CutPrefix(s, p)
		if !ok {
			continue
		}
		if rest == "" {
			return []string{p}
		}
		if memory.MatchString(rest) {
			return append([]string{p}, unglue(rest)...)
		}
		if tail := unglueRest(rest); len(tail) > 1 || tail[0] != rest || known[rest] != "" {
			return append([]string{p}, tail...)
		}
	}
	return []string{s}
}

// noise says nothing about the model.
var noise = map[string]bool{
	"nvidia": true, "geforce": true, "amd": true, "intel": true, "tesla": true, "instinct": true, "corporation": true,
	"gpu": true, "gpus": true, "generation": true, "edition": true, "with": true, "design": true,
}

var (
	geforceRTX = regexp.MustCompile(`^(?:20[5-8]0|[3-9]0[5-9]0)$`)
	geforceGTX = regexp.MustCompile(`^(?:7[5-8]0|9[5-8]0|10[5-8]0|16[3-6]0)$`)
	ampereRTX  = regexp.MustCompile(`^a(?:[1-6]000|[245]500)$`)
	quadro     = regexp.MustCompile(`^p(?:400|600|620|[1-6]000|2200)$`)
	arc        = regexp.MustCompile(`^(?:a(?:310|380|580|750|770)|b(?:570|580))$`)
	hx         = regexp.MustCompile(`^\d{2,3}hx$`)
	amdNumber  = regexp.MustCompile(`^[5-9]\d{3}$`)
	allDigits  = regexp.MustCompile(`^\d+$`)
)

// canonical drops noise, adds the family that people leave out, and puts form factor and memory last.
func canonical(words []string) []string {
	var body, forms, sizes []string
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == Mixed:
			return []string{Mixed}
		case noise[w]:
		case w == "mobile":
			body = append(body, "laptop")
		case allDigits.MatchString(w) && i+1 < len(words) && (words[i+1] == "gb" || words[i+1] == "gib"):
			sizes = append(sizes, w+"gb")
			i++
		case memory.MatchString(w):
			sizes = append(sizes, w)
		case form.MatchString(w):
			forms = append(forms, w)
		default:
			body = append(body, w)
		}
	}
	body = withFamily(body)
	return append(append(body, forms...), sizes...)
}

func withFamily(body []string) []string {
	if len(body) == 0 {
		return body
	}
	next := ""
	if len(body) > 1 {
		next = body[1]
	}
	switch first := body[0]; {
	case first == "radeon" && (next == "rx" || next == ""):
		return body[1:]
	case geforceRTX.MatchString(first), ampereRTX.MatchString(first), allDigits.MatchString(first) && next == "ada":
		return append([]string{"rtx"}, body...)
	case amdNumber.MatchString(first) && (next == "xt" || next == "xtx" || next == "gre"):
		return append([]string{"rx"}, body...)
	case geforceGTX.MatchString(first):
		return append([]string{"gtx"}, body...)
	case quadro.MatchString(first):
		return append([]string{"quadro"}, body...)
	case arc.MatchString(first):
		return append([]string{"arc"}, body...)
	case hx.MatchString(first):
		return append([]string{"cmp"}, body...)
	case first == "arc" && body[len(body)-1] == "graphics":
		return body[:len(body)-1]
	}
	return body
}

// slug joins the words. What they do not tell apart (letters outside ASCII, endless names) a hash does.
func slug(words []string, full string) string {
	s := strings.Join(words, "-")
	if s == Mixed {
		return s
	}
	if !foreign(full) && len(s) <= maxSlug && s != "" {
		return s
	}
	if full == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(strings.ToLower(full)))
	if s == "" {
		s = "unnamed"
	}
	return strings.Trim(s[:min(len(s), maxSlug-10)], "-") + "-x" + hex.EncodeToString(sum[:4])
}

func foreign(full string) bool {
	for _, r := range marks.Replace(strings.ToLower(full)) {
		if r > 0x7f && r != '×' {
			return true
		}
	}
	return false
}

// known spells words whose case is their own.
var known = map[string]string{
	"rtx": "RTX", "gtx": "GTX", "gt": "GT", "rx": "RX", "cmp": "CMP", "ti": "Ti", "super": "SUPER", "laptop": "Laptop",
	"d": "D", "xt": "XT", "xtx": "XTX", "gre": "GRE", "titan": "TITAN", "xp": "Xp", "pcie": "PCIe", "pro": "PRO", "ada": "Ada",
	"max": "Max", "sff": "SFF", "vii": "VII", "nvl": "NVL", "quadro": "Quadro", "radeon": "Radeon", "arc": "Arc",
}

func display(words []string) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			// Two products carry a hyphen of their own.
			mined := len(w) == 3 && len(words[i-1]) == 4 && strings.HasPrefix(words[i-1], "p10")
			if mined || (w == "q" && words[i-1] == "max") {
				b.WriteByte('-')
			} else {
				b.WriteByte(' ')
			}
		}
		switch {
		case known[w] != "":
			b.WriteString(known[w])
		case strings.ContainsAny(w, "0123456789") || len(w) <= 3:
			b.WriteString(strings.ToUpper(w))
		default:
			b.WriteString(strings.ToUpper(w[:1]) + w[1:])
		}
	}
	return b.String()
}
