# From compare.json to Markdown: medians per load and system, and the ratios of DESIGN.md's budgets.

def median: sort | if length == 0 then null else .[length / 2 | floor] end;

def thousands: floor | tostring | gsub("(?<=\\d)(?=(\\d{3})+$)"; ",");
def decimals($n): . * pow(10; $n) | round / pow(10; $n) | tostring;

{etcd: "etcd × 3", redis: "Redis", rangekv3: "RangeKV × 3", rangekv1: "RangeKV × 1"} as $names
| .load as $load
| [.runs[].system] as $present
| (["etcd", "rangekv3", "redis", "rangekv1"] | map(select(. as $s | $present | index($s)))) as $systems
| (reduce .runs[] as $run ([]; if index($run.load) then . else . + [$run.load] end)) as $loads
| .runs as $runs
| def of($l; $s): [$runs[] | select(.load == $l and .system == $s)];
  def figure($l; $s; path): of($l; $s) | map(path) | median;
  def cell($l; $s):
    of($l; $s)
    | if length == 0 then "—"
      else (map(.throughput) | median | thousands) + "/s, p99 "
           + (map(.latency_ms.p99) | median | decimals(1)) + " ms, CPU "
           + (map(.server_cpu_micros_per_request) | median | decimals(1)) + " µs"
           + (map(.failed) | add | if . > 0 then " (**\(.) errors**)" else "" end)
      end;
  def ratio($l; $ours; $theirs):
    # Only ours knows owners of slots: what it does by them is held against the plain load.
    figure($l; $ours; .throughput) as $a
    | figure($l | sub(", to the slot.*"; ""); $theirs; .throughput) as $b
    | if $a == null or $b == null then "—" else ($a / $b | decimals(2)) end;
  [["rangekv3", "etcd"], ["rangekv1", "redis"]]
| map(select(all(.[]; . as $s | $systems | index($s)))) as $pairs
| (["Load"] + ($systems | map($names[.])) + ($pairs | map("\($names[.[0]]) / \($names[.[1]])"))) as $header
| "| " + ($header | join(" | ")) + " |",
  "|" + ($header | map("---") | join("|")) + "|",
  ($loads[] as $l
   | "| " + ([$l] + ($systems | map(cell($l; .))) + ($pairs | map(ratio($l; .[0]; .[1]))) | join(" | ")) + " |"),
  "",
  "\($load.clients) clients, \($load.value_bytes)-byte values, \($load.keys) keys, median of \($load.rounds) rounds of \($load.seconds) s; CPU: of all servers, per request. Other processes took at most \([$runs[].others_share] | max * 100 | decimals(0)) % of the machine."
