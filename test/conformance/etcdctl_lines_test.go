package conformance

// dialogues are typed by an operator, each into a server of its own. A line is the arguments of etcdctl, split at spaces, and:
//
//	& line         goes on in the background until the dialogue ends; only its exit is compared
//	-w * line      once in each format
//	line > text    is interrupted as soon as its output has the text
//	line < input   reads the input
//
// $lease and $added are the IDs of the lease granted and the member added last, $member the server's own; $self is its address, $dir a folder.
var dialogues = map[string][]string{
	"auth": authCommands,
	"client": {
		"help", "options", "version", "-w json version", "completion bash", "completion zsh", "completion fish", "completion powershell", "completion none", "none",
	},
	"keys": {
		"-w * put a 1", "-w * put a 2 --prev-kv", "put b < from stdin", "put c -- -x", "put", "put a 1 2", "put c --ignore-value", "put none --ignore-value", "put a 3 --ignore-lease",
		"put a 3 --lease=123456", "put a 3 --lease=xyz", "put d 1", "put dd 2", "put e 0", "--hex put f 1",
		"-w * get a", "-w * get a --prefix", "-w * get none", "-w * get a c", "-w * get b --from-key", "-w * get a --count-only", "-w * get a --keys-only --prefix", "--hex get a",
		"get", "get a b c", "get a b --prefix", "get a --prefix --from-key", "get a --print-value-only", "get a -w json --print-value-only", "get a --keys-only --count-only",
		"get a --rev=2", "get a --rev=9999", "get a --rev=-1", "get d --prefix --limit=1", "get --from-key a --limit=2 -w json", "get a --consistency=s", "get a --consistency=x",
		"get --prefix= --from-key a --sort-by=VALUE", "get --from-key a --sort-by=VERSION --order=DESCEND", "get --from-key a --sort-by=CREATE --order=DESCEND",
		"get --from-key a --sort-by=MODIFY --order=ASCEND", "get --from-key a --sort-by=KEY --order=DESCEND --limit=2", "get a --sort-by=x", "get a --order=x",
		"get --from-key a --min-mod-rev=8", "get --from-key a --max-mod-rev=8", "get --from-key a --min-create-rev=8", "get --from-key a --max-create-rev=8 --limit=1 -w json",
		"get --from-key a --stream", "get --from-key a --stream -w json --limit=2", "get a --stream --sort-by=VALUE",
		"-w * endpoint hashkv", "endpoint hashkv --rev=5", "endpoint hashkv --rev=9999",
		"-w * del none", "del d --prefix --prev-kv", "-w * del b --prev-kv", "del", "del a b c", "del a b --prefix", "del a --prefix --from-key", "del a b --range", "del e --from-key", "put a 4",
		"-w none get a", "--command-timeout=x get a",
	},
	"txn": {
		"put a 5",
		"txn < mod(\"a\") > \"0\"\n\nput a 6\nget a\n\nput b 1\n\n", "txn < value(\"a\") = \"none\"\n\nput a 7\n\nget a\ndel a\n\n", "-w * txn < ver(\"a\") > \"1\"\n\nget a\nput c 1\ndel c\n\nget a\n\n",
		"txn -i < c(\"none\") = \"0\"\n\nput z 1\n\n\n", "txn < lease(\"z\") = \"0\"\n\nput z 1\nput z 2\n\n\n", "txn < nonsense\n\n\n", "txn < \n\nput a\n\n\n", "txn a < \n\n\n", "get a z",
	},
	"leases": {
		"lease grant 1000", "put a 1 --lease=$lease", "put b 1 --lease=$lease", "put a 2 --ignore-lease", "get a -w json", "lease list", "-w json lease list", "lease keep-alive --once $lease",
		"-w json lease keep-alive --once $lease", "lease timetolive $lease", "lease timetolive $lease --keys", "-w json lease timetolive $lease --keys", "lease keep-alive $lease > keepalived", "lease revoke $lease", "lease revoke $lease", "get a", "lease list",
		"lease timetolive $lease", "lease timetolive 123", "lease keep-alive --once 123", "lease revoke 123", "lease revoke", "lease revoke x", "lease grant", "lease grant x", "lease grant 0", "lease grant 9999999999",
		"-w json lease grant 1000", "-w fields lease grant 1000", "-w table lease grant 1000", "lease keep-alive", "lease timetolive", "lease list a",
	},
	"watch": {
		"put k1 one", "put k1 two", "put k2 three", "del k1", "put k2 last",
		"watch k --prefix --rev=2 > last", "watch k --prefix --rev=2 --prev-kv > last", "watch k1 k3 --rev=4 > last", "watch k1 --rev=2 > DELETE\nk1\n\n", "-w json watch k2 --rev=6 > mod_revision", "watch k2 --rev=6 --progress-notify > last",
		"watch k2 --rev=6 -- printenv ETCD_WATCH_REVISION ETCD_WATCH_EVENT_TYPE ETCD_WATCH_KEY ETCD_WATCH_VALUE > \"last\"", "watch -i > last < watch k --prefix --rev=2",
		"watch -i > only support watch < get a", "watch -i > not provided < watch", "watch", "watch k --prefix k3",
		"compaction 5", "watch k --prefix --rev=2",
	},
	"upkeep": {
		"put a 1", "put a 2", "put a 3", "compaction 3", "compaction 3", "compaction 4 --physical", "compaction 99", "compaction", "compaction x", "get a --rev=2", "defrag", "defrag --cluster",
		"--endpoints=127.0.0.1:1 --command-timeout=1s defrag", "alarm list", "alarm disarm", "-w json alarm list", "alarm list x", "alarm disarm x",
		"-w * endpoint health", "endpoint health --cluster", "-w * endpoint status", "endpoint status --cluster", "endpoint hashkv --cluster",
		"snapshot save $dir/s.db", "snapshot save", "snapshot save $dir/none/s.db",
		"-w * downgrade validate 3.6.0", "downgrade validate 3.5.0", "downgrade validate x", "downgrade validate", "downgrade enable", "downgrade enable 3.5.0", "downgrade enable x", "downgrade cancel", "downgrade enable 3.6.0", "downgrade enable 3.6.0", "downgrade cancel", "downgrade cancel",
		"put /etcdctl-check-perf/a 1", "check perf", "check perf --load=none", "check perf none", "put /etcdctl-check-datascale/a 1", "check datascale", "check datascale --load=none", "check datascale --load=s --prefix=/scale/",
	},
	"members": {
		"member list", "-w * member list", "member list --hex", "member update $member", "member update none --peer-urls=http://127.0.0.1:1", "member update 123 --peer-urls=http://127.0.0.1:1", "member promote 123", "member promote $member",
		"member promote", "member remove 123", "member remove", "member remove none", "member add", "member add a", "member add a --peer-urls=none", "move-leader 123", "move-leader $member", "move-leader", "move-leader none",
		"member add a --learner --peer-urls=http://127.0.0.1:1", "member list", "member add b --learner --peer-urls=http://127.0.0.1:1,http://127.0.0.1:4", "member add b --learner --peer-urls=http://127.0.0.1:2",
		"member promote $added", "member update $added --peer-urls=http://127.0.0.1:3", "member remove $added", "member remove $added", "member list",
	},
	"concurrency": {
		"lock l echo held", "lock l --ttl=20 false", "lock l > l/", "lock", "elect e proposal1 > proposal1", "elect", "elect e", "elect -l e a", "& elect e proposal2", "elect -l e > proposal2",
		"put from/a 1", "& make-mirror --prefix=from/ --dest-prefix=to/ $self", "watch to/ --prefix --rev=1 > 1", "get to/ --prefix", "make-mirror", "make-mirror a b",
	},
}
