package cloreapi

import (
	"bytes"
	"fmt"
	"testing"
)

func BenchmarkDecodeMarketplace(b *testing.B) {
	var body bytes.Buffer
	body.WriteString(`{"servers":[`)
	for i := range 3500 {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"id":%d,"owner":2288,"mrl":168,"rented":false,"price":{"on_demand":{"bitcoin":0.00007805,`+
			`"CLORE-Blockchain":4001.04,"USD-Blockchain":5},"spot":{"bitcoin":0.00003,"CLORE-Blockchain":1600,"USD-Blockchain":2},`+
			`"usd":{"on_demand_btc":5.004526730470482,"on_demand_clore":5.000044473142094,"on_demand_usd":5,"spot":0}},`+
			`"specs":{"mb":"2129","cpu":"Intel(R) Xeon(R) CPU E5-2699C v4 @ 2.20GHz","cpus":"44/88","ram":128.8107,`+
			`"gpu":"1x NVIDIA GeForce RTX 4090","gpuram":24,"disk":"2320 102.4688GB","disk_speed":31.54,`+
			`"net":{"up":29.35,"down":106.23,"cc":"US","test_history":["S|1761801007|106.23|29.35"]},"backend_version":21,`+
			`"pcie_rev":3,"pcie_width":16,"pl":[450],"stock_pl":[450],"xfs":1},"reliability":0.9969,`+
			`"allowed_coins":["bitcoin","CLORE-Blockchain","USD-Blockchain"],"rating":{"avg":4.64,"cnt":44},`+
			`"gpu_array":[" RTX 4090"],"cuda_version":"13.0"}`, i+1)
	}
	body.WriteString(`],"my_servers":[],"code":0}`)
	b.SetBytes(int64(body.Len()))
	b.ReportAllocs()
	for b.Loop() {
		m, _, err := decodeMarketplace(bytes.NewReader(body.Bytes()))
		if err != nil || len(m.Servers) != 3500 {
			b.Fatal(err)
		}
	}
}
