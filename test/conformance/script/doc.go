// Package script runs conversations with an etcd v3 server and writes down
// everything it answers, so that the transcripts of two servers can be
// compared as text.
//
// A script is a datadriven file. A directive is one kind of call; each line of
// its input is one request in protobuf text form, and a line that starts with
// a blank continues the line before; {} is a request without fields. What the server answers is the expected
// output below the ---- line. The calls go through gRPC with the messages of
// etcdserverpb and no client library, so nothing is retried, merged or hidden.
//
//	put | range | delete | txn | compact | grant | revoke | ttl | leases |
//	status | alarm | hash | hashkv | members | member-add | member-remove |
//	member-update | member-promote | defrag | moveleader | downgrade | health
//	                 the unary calls. Options: as=NAME remembers the lease that
//	                 was granted, the member that was added, or the one that
//	                 answered with the members; join=NAME fills in a free
//	                 address of a member that launch starts; patiently repeats
//	                 the call until it succeeds; repeat=N runs the input N times; quiet prints
//	                 only errors and the last answer; codes prints only the code
//	                 of an error; leader asks with the metadata hasleader; least=N
//	                 prints N+ for a lease's remaining time of N or more; sort
//	                 orders the list of leases, which etcd has in any order where
//	                 it does not lead.
//	login | auth-enable | auth-disable | auth-status | user-add | user-get |
//	user-list | user-delete | user-passwd | user-grant | user-revoke |
//	role-add | role-get | role-list | role-delete | role-grant | role-revoke
//	                 the calls of Auth, with the same options; login with as=NAME
//	                 remembers the token.
//	rangestream      prints the chunks as one answer, and anything but keys in
//	                 a chunk that is not the last; with chunks, each chunk.
//	keepalive        one stream for all lines, one answer for each.
//	watch-open S     opens the watch stream S (leader: with hasleader).
//	watch-send S     sends WatchRequests; watch-recv answers come separately.
//	watch-recv S n=N prints the next N responses as they are. With events, prints
//	                 responses until there were N events, one event a line, so
//	                 that the batching of a catching-up watch does not matter;
//	                 that no revision is split is checked; until=KEY ends with an
//	                 event of that key instead. With sort, orders the
//	                 N responses by watch id: different watches of one revision
//	                 come in any order.
//	watch-halfclose S  says that no request follows; the watches go on.
//	raw METHOD       each line is a message in hexadecimal; prints the code.
//	server FLAGS     the flags of the server; before any other directive. In them
//	                 $rsa, $ec, $ed and $secret are files with a key, and with .pub
//	                 behind it its public half. tls has clients come by TLS.
//	cluster N FLAGS  starts members m1 to mN; instead of server.
//	launch NAME FLAGS  starts the member that was added with join=NAME.
//	stop             SIGTERM; with kill, SIGKILL. restart starts it again.
//	ended            waits for the server to end by itself.
//	restart          SIGTERM and a new process on the same data directory and
//	                 addresses; with kill, SIGKILL instead.
//	snapshot         takes a backup, and prints what etcdutl says about it.
//	http PATH        GET on the client port: status and body.
//	json PATH        POST of each line to the JSON API: status, content type, body.
//	                 Options: method=M, header=(NAME,VALUE), host=H, as=NAME;
//	                 show=(NAME,...) prints headers of the answer.
//	json-open S PATH  the same for one answer that goes on, of which json-recv S n=N
//	                 prints the next N lines.
//	lock | unlock | campaign | proclaim | resign | leader
//	                 the calls of the Lock and Election services.
//	begin P CALL     makes a unary call that waits; end P prints its answer,
//	                 cancel P gives it up.
//	observe S        opens Election.Observe, of which observe-recv S n=N prints
//	                 the next N answers.
//
// Any directive takes token=NAME, bearer=NAME or authorization=NAME: the token that
// goes with it, and how, of that name or literally; gateway: the metadata of a JSON
// gateway; and with TLS cn=NAME: the user that the client's certificate names,
// nobody without it.
//
// Any directive takes at=NAME, leader, follower or down (one that was stopped): the
// member it is for. Without it that is the first.
//
// In the input, $NAME stands for the id of a lease or of a member, ${i} for the round of a repeat
// (${i:3} with three digits) and ${x*1000} for a thousand times x.
//
// Output: header and scalars of a message on one line, then its messages below
// it, indented. Fields that are zero are left out, as protobuf does. What two
// servers may differ in is masked: ids of members and of the cluster, terms and
// indexes of raft, sizes, the remaining time of a lease, ports; of a token the
// kind is shown. A mask shows
// that there is a value (#), so a field that one server leaves empty shows. A
// header with all of its ids prints only its revision, otherwise what it lacks.
// Answers of a directive with several requests are numbered as its lines.
//
// Goroutines: one per server process, which owns its log and its Wait.
//
// Limits: limits.go. Waiting is for an answer or its time-out, and a time-out is
// part of the transcript, and so a difference. Only patient calls and the search
// for a leader ask again and again.
package script
