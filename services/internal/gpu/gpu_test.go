package gpu_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/renthook/renthook/services/internal/gpu"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]gpu.Model{
		"1x NVIDIA GeForce RTX 4090":             {Slug: "rtx-4090", Name: "RTX 4090", Full: "NVIDIA GeForce RTX 4090", Count: 1},
		" RTX 3090":                              {Slug: "rtx-3090", Name: "RTX 3090", Full: "RTX 3090", Count: 1},
		"12x NVIDIA GeForce RTX 3070 Laptop GPU": {Slug: "rtx-3070-laptop", Name: "RTX 3070 Laptop", Full: "NVIDIA GeForce RTX 3070 Laptop GPU", Count: 12},
		"2x NVIDIA GeForce RTX 4070 Ti SUPER":    {Slug: "rtx-4070-ti-super", Name: "RTX 4070 Ti SUPER", Full: "NVIDIA GeForce RTX 4070 Ti SUPER", Count: 2},
		"8x Tesla V100SXM232GB":                  {Slug: "v100-sxm2-32gb", Name: "V100 SXM2 32GB", Full: "Tesla V100SXM232GB", Count: 8},
		"6x Mixed GPUs":                          {Slug: "mixed", Name: "Mixed", Full: "Mixed GPUs", Count: 6},
		"8x NVIDIA P102100":                      {Slug: "p102-100", Name: "P102-100", Full: "NVIDIA P102100", Count: 8},
		"2x NVIDIA Graphics Device":              {Slug: "graphics-device", Name: "Graphics Device", Full: "NVIDIA Graphics Device", Count: 2},
		"1x NVIDIA GeForce GTX 1060 6GB":         {Slug: "gtx-1060-6gb", Name: "GTX 1060 6GB", Full: "NVIDIA GeForce GTX 1060 6GB", Count: 1},
		"":                                       {Count: 1},
		"   ":                                    {Count: 1},
		"0x NVIDIA GeForce RTX 4090":             {Slug: "rtx-4090", Name: "RTX 4090", Full: "NVIDIA GeForce RTX 4090", Count: 1},
	} {
		if got := gpu.Parse(text); got != want {
			t.Errorf("Parse(%q)\n got %+v\nwant %+v", text, got, want)
		}
	}
}

func TestSlug(t *testing.T) {
	t.Parallel()
	for want, spellings := range map[string][]string{
		"rtx-4090": {"RTX 4090", "rtx4090", "4090", "GeForce RTX 4090", "rtx-4090", "RTX_4090", "  Rtx   4090 ", "nvidia rtx 4090",
			"1x NVIDIA GeForce RTX 4090", "2x4090", "4x RTX4090", "NVIDIA_GeForce_RTX_4090", "geforce4090", "8 × RTX 4090"},
		"rtx-4090-d":                         {"RTX 4090 D", "4090D", "rtx4090d", "NVIDIA GeForce RTX 4090 D"},
		"rtx-4090-laptop":                    {"NVIDIA GeForce RTX 4090 Laptop GPU", "4090 laptop", "RTX 4090 Mobile", "rtx-4090-laptop"},
		"rtx-4070-ti-super":                  {"4070 Ti SUPER", "rtx4070tisuper", "RTX 4070Ti Super"},
		"rtx-4070-super":                     {"4070 super", "RTX4070SUPER"},
		"rtx-4060-ti-16gb":                   {"4060Ti16GB", "RTX 4060 Ti 16 GB", "4060 ti 16g"},
		"rtx-3060-ti":                        {"3060ti", "RTX 3060 Ti", "3060-TI"},
		"gtx-1080-ti":                        {"1080ti", "GTX1080Ti", "NVIDIA GeForce GTX 1080 Ti"},
		"gtx-1660-super":                     {"1660 SUPER"},
		"rtx-5090":                           {"5090", "NVIDIA GeForce RTX 5090"},
		"a100-sxm4":                          {"A100 SXM4", "NVIDIA A100-SXM4", "a100sxm4"},
		"a100-sxm4-80gb":                     {"NVIDIA A100SXM480GB", "A100-SXM4-80GB", "A100 80GB SXM4"},
		"a100-pcie-80gb":                     {"NVIDIA A100 80GB PCIe", "A100-PCIE-80GB", "A100PCIE80GB"},
		"v100-sxm2-32gb":                     {"Tesla V100SXM232GB", "V100-SXM2-32GB", "Tesla V100-SXM2-32GB"},
		"h100-hbm3-80gb":                     {"NVIDIA H100 80GB HBM3"},
		"h100-pcie":                          {"NVIDIA H100 PCIe"},
		"h200":                               {"NVIDIA H200"},
		"l40s":                               {"NVIDIA L40S", "l40s"},
		"t4":                                 {"Tesla T4", "T4"},
		"p40":                                {"Tesla P40", "P40"},
		"rtx-a6000":                          {"NVIDIA RTX A6000", "A6000", "rtxa6000"},
		"rtx-a2000-12gb":                     {"NVIDIA RTX A2000 12GB", "A2000 12 GB"},
		"rtx-a5000-laptop":                   {"NVIDIA RTX A5000 Laptop GPU"},
		"quadro-rtx-4000":                    {"Quadro RTX 4000"},
		"rtx-4000-ada":                       {"NVIDIA RTX 4000 Ada Generation", "RTX4000Ada", "4000 Ada"},
		"rtx-4000-sff-ada":                   {"NVIDIA RTX 4000 SFF Ada Generation"},
		"quadro-p620":                        {"Quadro P620", "P620"},
		"rtx-2080-max-q":                     {"NVIDIA GeForce RTX 2080 with Max-Q Design"},
		"titan-rtx":                          {"NVIDIA TITAN RTX", "titanrtx", "Titan RTX"},
		"titan-xp":                           {"NVIDIA TITAN Xp", "TitanXp"},
		"cmp-170hx":                          {"NVIDIA CMP 170HX", "170HX", "cmp170hx"},
		"p106-100":                           {"NVIDIA P106100", "P106-100"},
		"p106-090":                           {"NVIDIA P106090"},
		"rx-7900-xtx":                        {"AMD Radeon RX 7900 XTX", "7900xtx", "RX 7900XTX", "rx7900xtx"},
		"gt-1030":                            {"NVIDIA GeForce GT 1030", "GT1030"},
		"rx-6800":                            {"AMD Radeon RX 6800"},
		"rx-6800-xt":                         {"RX6800XT", "Radeon RX 6800 XT"},
		"radeon-vii":                         {"AMD Radeon VII"},
		"radeon-pro-w7900":                   {"AMD Radeon PRO W7900", "Radeon ProW7900"},
		"mi300x":                             {"AMD Instinct MI300X", "MI300X"},
		"arc-a770":                           {"Intel(R) Arc(TM) A770 Graphics", "A770", "Intel Arc A770"},
		"mtt-s80":                            {"MTT S80"},
		"mixed":                              {"Mixed", "6x Mixed GPUs", "mixed gpus"},
		"rtx-pro-6000-blackwell-workstation": {"NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTXPRO6000 Blackwell Workstation"},
		"rtx-pro-6000-blackwell-max-q-workstation": {"NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"},
	} {
		for _, s := range spellings {
			if got := gpu.Slug(s); got != want {
				t.Errorf("Slug(%q) = %q, want %q", s, got, want)
			}
			if got := gpu.Parse(s); got.Slug != want || got.Name != gpu.Parse(spellings[0]).Name {
				t.Errorf("Parse(%q) = %q %q, want %q with the name of %q", s, got.Slug, got.Name, want, spellings[0])
			}
		}
		if got := gpu.Slug(want); got != want {
			t.Errorf("Slug of the slug %q is %q", want, got)
		}
		if name := gpu.Parse(spellings[0]).Name; gpu.Slug(name) != want {
			t.Errorf("Slug of the name %q is %q, want %q", name, gpu.Slug(name), want)
		}
	}
}

func TestUnknownNamesStayApart(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("very-long-name ", 20)
	names := []string{"显卡", "显卡 2", "Größe 5", "Grosse 5", "Foo 1", "Foo 1+", long + "a", long + "b", "🦊", "4000", "6000", "RTX 4000", "x"}
	seen := map[string]string{}
	for _, n := range names {
		s := gpu.Slug(n)
		if !valid.MatchString(s) || len(s) > 64 {
			t.Errorf("Slug(%q) = %q cannot stand in a subject", n, s)
		}
		if other, dup := seen[s]; dup {
			t.Errorf("%q and %q share the slug %q", n, other, s)
		}
		seen[s] = n
		if m := gpu.Parse(n); m.Name == "" {
			t.Errorf("Parse(%q) has no name", n)
		}
	}
}

var valid = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

func FuzzParse(f *testing.F) {
	f.Add("8x NVIDIA GeForce RTX 3090")
	f.Add(" ×(tm)®")
	f.Add("4070tisuperd")
	f.Fuzz(func(t *testing.T, text string) {
		m := gpu.Parse(text)
		if strings.Join(strings.Fields(text), "") == "" {
			return
		}
		if !valid.MatchString(m.Slug) || len(m.Slug) > 64 {
			t.Fatalf("Parse(%q).Slug = %q", text, m.Slug)
		}
		if m.Name == "" || m.Count < 1 {
			t.Fatalf("Parse(%q) = %+v", text, m)
		}
	})
}

// Each name of the recorded marketplace is one model: none merged, none dropped.
func TestRecordedNames(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("RENTHOOK_RECORDINGS")
	if dir == "" {
		dir = "../../../../shared/data/clore"
	}
	raw, err := os.ReadFile(filepath.Join(dir, "marketplace-2024-05-21.full.json"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("no recording of the marketplace in " + dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	var market struct {
		Servers []struct{ Specs struct{ GPU string } }
	}
	if err := json.Unmarshal(raw, &market); err != nil {
		t.Fatal(err)
	}
	bySlug, byName := map[string]string{}, map[string]string{}
	for _, s := range market.Servers {
		m := gpu.Parse(s.Specs.GPU)
		if !valid.MatchString(m.Slug) {
			t.Errorf("%q: slug %q", s.Specs.GPU, m.Slug)
		}
		if other, ok := bySlug[m.Slug]; ok && other != m.Full {
			t.Errorf("%q and %q share the slug %q", m.Full, other, m.Slug)
		}
		if got := gpu.Slug(m.Slug); got != m.Slug {
			t.Errorf("%q: slug of its slug %q is %q", m.Full, m.Slug, got)
		}
		if other, ok := byName[m.Name]; ok && other != m.Full {
			t.Errorf("%q and %q share the name %q", m.Full, other, m.Name)
		}
		bySlug[m.Slug], byName[m.Name] = m.Full, m.Full
	}
	if len(bySlug) < 50 {
		t.Errorf("only %d models in the recording", len(bySlug))
	}
}
