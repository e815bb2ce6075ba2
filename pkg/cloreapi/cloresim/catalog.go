package cloresim

// model is a kind of GPU as hosts list it.
type model struct {
	// name is what specs.gpu says, without the count.
	name string
	// vram is specs.gpuram in GB: what is usable, a little below the nominal size on some models.
	vram int
	// low and high are USD per hour for one GPU, in 1/10,000.
	low, high int64
	watts     int
	// weight is how often the model is listed.
	weight int
	// rig models are listed mostly six and more to a server.
	rig bool
}

// rtx4090 is the model the traps are about: no honest listing of it costs less than 0.55 USD per hour on demand
// or takes a spot bid below 0.52.
var rtx4090 = model{"NVIDIA GeForce RTX 4090", 24, 5500, 11500, 450, 150, false}

// catalog follows the mix of recorded marketplaces, with the models that came since.
var catalog = []model{
	rtx4090,
	{"NVIDIA GeForce RTX 5090", 31, 6500, 16000, 575, 90, false},
	{"NVIDIA GeForce RTX 5080", 16, 2500, 6000, 360, 40, false},
	{"NVIDIA GeForce RTX 5070 Ti", 16, 1700, 4000, 300, 35, false},
	{"NVIDIA GeForce RTX 5070", 12, 1300, 3000, 250, 15, false},
	{"NVIDIA GeForce RTX 4080", 16, 2200, 5000, 320, 25, false},
	{"NVIDIA GeForce RTX 4080 SUPER", 16, 2300, 5200, 320, 20, false},
	{"NVIDIA GeForce RTX 4070 Ti SUPER", 16, 1500, 3600, 285, 20, false},
	{"NVIDIA GeForce RTX 4070 Ti", 12, 1300, 3200, 285, 30, false},
	{"NVIDIA GeForce RTX 4070 SUPER", 12, 1200, 2800, 220, 18, false},
	{"NVIDIA GeForce RTX 4070", 12, 1000, 2600, 200, 30, false},
	{"NVIDIA GeForce RTX 4060 Ti", 8, 600, 1700, 160, 18, false},
	{"NVIDIA GeForce RTX 4060", 8, 500, 1400, 115, 14, false},
	{"NVIDIA GeForce RTX 3090", 24, 850, 2600, 350, 70, false},
	{"NVIDIA GeForce RTX 3090 Ti", 24, 1100, 3000, 450, 8, false},
	{"NVIDIA GeForce RTX 3080 Ti", 12, 700, 1900, 350, 40, true},
	{"NVIDIA GeForce RTX 3080", 10, 500, 1500, 320, 60, true},
	{"NVIDIA GeForce RTX 3070 Ti", 8, 450, 1200, 290, 20, true},
	{"NVIDIA GeForce RTX 3070", 8, 400, 1100, 220, 45, true},
	{"NVIDIA GeForce RTX 3070 Laptop GPU", 8, 350, 900, 125, 25, true},
	{"NVIDIA GeForce RTX 3060 Ti", 8, 350, 1000, 200, 70, true},
	{"NVIDIA GeForce RTX 3060", 12, 300, 900, 170, 30, true},
	{"NVIDIA GeForce RTX 2080 Ti", 11, 400, 1100, 250, 8, true},
	{"NVIDIA GeForce GTX 1660 SUPER", 6, 150, 450, 125, 18, true},
	{"NVIDIA GeForce GTX 1080 Ti", 11, 250, 700, 250, 8, true},
	{"NVIDIA GeForce GTX 1070", 8, 150, 450, 150, 6, true},
	{"NVIDIA CMP 90HX", 10, 200, 600, 320, 10, true},
	{"NVIDIA P106100", 6, 100, 300, 120, 8, true},
	{"NVIDIA RTX A4000", 16, 800, 2000, 140, 8, false},
	{"NVIDIA RTX A5000", 24, 1500, 3200, 230, 8, false},
	{"NVIDIA RTX A6000", 47, 3500, 7500, 300, 8, false},
	{"NVIDIA L40S", 44, 6000, 12000, 350, 5, false},
	{"NVIDIA A100 80GB PCIe", 79, 9000, 18000, 300, 6, false},
	{"NVIDIA H100 PCIe", 79, 15000, 30000, 350, 4, false},
	{"Tesla V100SXM232GB", 31, 1800, 4200, 300, 4, true},
	{"Tesla P40", 22, 500, 1200, 250, 3, true},
}

type weighted[T any] struct {
	value  T
	weight int
}

var (
	countries = []weighted[string]{
		{"RU", 45}, {"US", 10}, {"UA", 9}, {"SE", 5}, {"BY", 4}, {"KR", 4}, {"DE", 4}, {"PL", 3}, {"CA", 3},
		{"NL", 2}, {"KZ", 2}, {"CN", 2}, {"NO", 2}, {"FR", 1}, {"GB", 1}, {"TW", 1}, {"ES", 1}, {"CZ", 1},
	}
	// rentalHours are maximum rental lengths.
	rentalHours = []weighted[int64]{
		{72, 32}, {1440, 12}, {48, 11}, {120, 7}, {240, 6}, {168, 6}, {24, 5}, {96, 4}, {720, 4}, {360, 2}, {12, 1}, {6, 1},
	}
	cpus = []weighted[[2]string]{
		{[2]string{"Intel(R) Xeon(R) CPU E5-2699C v4 @ 2.20GHz", "44/88"}, 6},
		{[2]string{"Intel(R) Xeon(R) CPU E5-2697 v4 @ 2.30GHz", "36/72"}, 8},
		{[2]string{"AMD EPYC 7402 24-Core Processor", "24/48"}, 8},
		{[2]string{"AMD Ryzen 9 5950X 16-Core Processor", "16/32"}, 6},
		{[2]string{"AMD Ryzen 7 5700X 8-Core Processor", "8/16"}, 6},
		{[2]string{"13th Gen Intel(R) Core(TM) i7-13700K", "16/24"}, 4},
		{[2]string{"Intel(R) Core(TM) i5-10400F CPU @ 2.90GHz", "6/12"}, 6},
		{[2]string{"Intel(R) Celeron(R) G5905 CPU @ 3.50GHz", "2/2"}, 10},
		{[2]string{"AMD Athlon 200GE with Radeon Vega Graphics", "2/4"}, 4},
	}
	boards = []weighted[string]{
		{"X99", 8}, {"ROMED8-2T", 6}, {"B450 Steel Legend", 4}, {"PRIME Z270-A", 4}, {"ROG STRIX Z490-E GAMING", 3},
		{"2129", 2}, {"MS-7D25", 3}, {"X570 AORUS ELITE", 3},
	}
	disks = []weighted[string]{
		{"SPCCx20Solidx20Statex", 6}, {"RevuAhnx20900Gx20BIZx", 2}, {"2320", 3}, {"Apacer AS2280P4 512GB", 4},
		{"Samsungx20SSDx20980x20PROx201TB", 5}, {"", 2},
	}
	cudas = []weighted[string]{{"12.4", 5}, {"12.8", 5}, {"13.0", 4}, {"12.2", 3}, {"12.0", 2}, {"11.8", 1}}
)
