package measure

import "fmt"

// Number writes a figure with two significant digits at least.
func Number(v float64) string {
	switch abs := max(v, -v); {
	case abs >= 1000:
		s := fmt.Sprintf("%.0f", v)
		for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return s
	case abs >= 20:
		return fmt.Sprintf("%.0f", v)
	case abs >= 2:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
