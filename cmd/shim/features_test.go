package main

import "testing"

func TestFeatureGates(t *testing.T) {
	for _, tc := range []struct {
		set     []string
		feature string
		want    bool
	}{
		{nil, "CompactHashCheck", false},
		{nil, "FastLeaseKeepAlive", true},
		{[]string{"CompactHashCheck=true"}, "CompactHashCheck", true},
		{[]string{"AllAlpha=true"}, "CompactHashCheck", true},
		{[]string{"AllAlpha=true"}, "FastLeaseKeepAlive", true},
		{[]string{"AllBeta=false"}, "FastLeaseKeepAlive", false},
		{[]string{"AllAlpha=true,CompactHashCheck=false"}, "CompactHashCheck", false},
		{[]string{"CompactHashCheck=true", " CompactHashCheck = false "}, "CompactHashCheck", false},
	} {
		g := featureGates{}
		for _, s := range tc.set {
			if err := g.Set(s); err != nil {
				t.Fatal(err)
			}
		}
		if got := g.enabled(*lookupFeature(tc.feature)); got != tc.want {
			t.Errorf("%v: %s is %v", tc.set, tc.feature, got)
		}
	}
	g := featureGates{}
	if err := g.Set("CompactHashCheck=true,Foo=true"); err == nil || len(g) != 0 {
		t.Errorf("half of a wrong value was taken: %v %v", g, err)
	}
}
