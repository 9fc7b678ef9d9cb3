"""Texts that each reader understands, from which fuzzing begins. Large ones are kept small."""

import json

from proxmox_cpu_affinity.formats import hwloc_xml, snapshot, sysfs
from proxmox_cpu_affinity.formats.snapshot import Snapshot
from proxmox_cpu_affinity.latency import cache
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec
from proxmox_cpu_affinity.store import written

_HOST = generate(parse_spec("1x1x2x2"))
_TOPOLOGY = sysfs.topology(_HOST)
_MATRIX = predicted(_TOPOLOGY)

GUESTS = (
    "#first line%3A\nagent: 1\nboot: order=scsi0\ncores: 4\ncpu: host\nhookscript: local:snippets/x\n"
    "memory: 2048\nname: web-1\nnuma: 1\nnuma0: cpus=0-1;3,hostnodes=0,memory=1024,policy=bind\n"
    "sockets: 2\ntags: cpu-affinity;cpu-pinned\nvcpus: 3\n\n[PENDING]\ncores: 8\ndelete: !tags,name\n"
    "\n[special:cloudinit]\nname: x\n\n[before]\ncores: 2\nsnaptime: 1700000000\nparent: older\n",
    "affinity: 0-3,8\nargs: -cpu x\ntemplate: 1\nsmp: 2\nlock: migrate\nhotplug: cpu,disk\n",
    "description: a%20b\ncdrom: none\nunknown: 1\nsnapstate: prepare\ncores: many\n[odd one]\nx: y\n",
)
SECTIONS = (
    "dir: local\n\tpath /var/lib/vz\n\tcontent iso,snippets\n\n"
    "nfs: share\n\texport /x\n\tserver 10.0.0.1\n\tcontent-dirs snippets=scripts\n\tnodes a,b\n\n"
    "# a comment\nzfspool: fast\n\tpool rpool\n\tdisable\n\tshared 0\n",
    "vm: 100\n\tstate started\n\tgroup all\n\nvm: 101\n\tstate ignored\n\nct: 200\n\tcomment x\n",
)
SYSFS = tuple(
    "\n".join(f"{path}={text!r}"[:-1].replace("='", "=", 1) for path, text in host.items())
    for host in (_HOST, generate(parse_spec("1x2x1x1+nodes=2")))
)
SNAPSHOTS = (
    snapshot.to_text(Snapshot("made", "a host", _HOST)),
    snapshot.to_text(
        Snapshot("made", "two", {"proc/cpuinfo": ""}, ((0.0, 1.5), (1.5, 0.0)), ("n",))
    ),
)
RANKINGS = (
    json.dumps(
        [
            {"cpu": a, "ranking": [{"cpu": 1 - a, "socket": 0, "core": 1 - a, "latency_ns": 27.5}]}
            for a in (0, 1)
        ]
    ),
)
CSVS = (",\n12.5,\n", ",,\n1.0,,\n2,3,\n", "0,1\n1,0\n", "nan,5\n5,nan\n")
LSCPU = (
    "# The following is the parsable format, which can be fed to other\n"
    "# CPU,Core,Socket,Node,,L1d,L1i,L2,L3\n0,0,0,0,,0,0,0,0\n1,1,0,0,,1,1,1,0\n",
    "CPU NODE SOCKET CORE L1d:L1i:L2:L3 ONLINE\n  0    0      0    0 0:0:0:0          yes\n"
    "  1    0      0    0 0:0:0:0          yes\n  2    -      -    - -                 no\n",
    "Architecture:        x86_64\nCPU(s):              4\nOn-line CPU(s) list: 0-3\n"
    "Thread(s) per core:  2\nCore(s) per socket:  2\nSocket(s):           1\nModel name: A CPU\n"
    "L2 cache:            1 MiB (2 instances)\nL3 cache: 8 MiB (1 instance)\n"
    "NUMA node0 CPU(s):   0-3\n"
    "available: 1 nodes (0)\nnode 0 cpus: 0 1 2 3\nnode 0 size: 4000 MB\nnode 0 free: 100 MB\n"
    "node distances:\nnode   0 \n  0:  10 \n",
)
HWLOC = (
    hwloc_xml.to_text(_TOPOLOGY, _MATRIX),
    '<?xml version="1.0"?>\n<!DOCTYPE topology SYSTEM "hwloc2.dtd">\n<topology version="2.0">'
    '<object type="Machine" os_index="0"><object type="PU" os_index="0"/>'
    '<object type="PU" os_index="1"/></object></topology>',
    '<!DOCTYPE topology [<!ENTITY a "b">]><topology>&a;</topology>',
)
UEVENTS = (
    "online@/devices/system/cpu/cpu3\0ACTION=online\0DEVPATH=/devices/system/cpu/cpu3\0SUBSYSTEM=cpu",
    "add@/devices/x\0SUBSYSTEM=pci\0SEQNUM=12\0",
)
PROC = (
    "1234 (CPU 0/KVM) S 1 " + " ".join(str(n) for n in range(5, 53)),
    "cpu  1 2 3 4\ncpu0 10 0 5 100 3 0 0 0 0 0\ncpu1 1 2 3 4 5 6 7 8 9 10\nintr 5\n",
    "processor\t: 0\nmodel name\t: A  CPU\nmicrocode\t: 0x1\nflags\t\t: fpu hypervisor\n\nprocessor: 1\n",
    "/usr/bin/kvm\0-id\x00100\0-pidfile\0/run/qemu-server/100.pid\0",
    "1234\n",
    "12 13 14",
    "Node 0 MemTotal:       16384 kB\nNode 0 MemFree: 1 kB\n",
)
NUMA = (
    "7f00 default anon=100 dirty=100 N0=60 N1=40 kernelpagesize_kB=4\n7f10 bind:0 N0=2 kernelpagesize_kB=2048\n",
    "Node 0 MemTotal:       16384 kB\nNode 0 MemFree:  8000 kB\nNode 0 Inactive(file): 20 kB\n",
)
PRESSURES = (
    "some avg10=0.12 avg60=0.00 avg300=0.00 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "123456789 4567 89\n",
)
SETTINGS = (
    "# a comment\nPCA_MANAGE=all\nPCA_RESERVED_CPUS='0-1' # why\nexport PCA_PORT=0\n"
    "PCA_WEIGHT_LAT_NS=0.25\nPCA_MEASURE_CORES=25%\nPCA_SOCKET_FILE=/run/x.sock\nPCA_NEW=1\n",
    'PCA_LOG_LEVEL="debug"\r\nPCA_ROUNDS=\nPCA_WIDEN=on\nPCA_SOCKET_RETRY=3\n',
)
_KEPT: dict[str, object] = {
    "boot_id": "boot",
    "turn": {"last_start": 0, "counter": 1},
    "released": [102],
    "leaving": {"103": {"process": [9, 7], "found": {"9": "0-3"}}},
    "last_places": {"104": "2-3"},
    "tracked": {
        "100": {
            "home": "0-1",
            "applied": "0-3",
            "order": [0, 1],
            "start": 0,
            "parts": ["0-1"],
            "part_of": [0, 0],
            "exclusive": False,
            "pinned": False,
            "warnings": ["w"],
            "since": 1.5,
            "process": [5, 7],
            "found": {"5": "0-3"},
            "held": None,
            "policy": "shared",
            "confined_at": 2.5,
        }
    },
}
STATES = (json.dumps(_KEPT), json.dumps({**_KEPT, "tracked": {}, "released": [101]}))
STORED = (written(_KEPT), written({}), '{"version":1,"sha256":"x","content":{}}')
CACHES = (json.dumps(cache.encoded(_MATRIX, "print")), '{"version":2,"fingerprint":""}')
BODIES = (
    '{"guests":[{"vmid":100,"vcpus":4},{"vmid":101,"vcpus":8192}]}',
    '{"undo":true}',
    '{"migrated_from":"pve2"}',
    "",
)
HEADERS = (
    "localhost:8245",
    "[::1]:80",
    "http://127.0.0.1:8245",
    "https://evil.example",
    "Bearer tttttttttttttttttttttttttttttttttttttttttttt",
    "evil@localhost",
)
MACHINES = (
    json.dumps(
        {
            "name": "m",
            "cpus": [{"cpu": n, "core": n, "l3": 0, "node": 0, "socket": 0} for n in (0, 1)],
            "lat": [[0, 20], [20, 0]],
            "reserved": [1],
            "expected": 4,
            "weights": {"thread": 1.0},
        }
    ),
)
REPLIES = (
    "pingpong 2",
    "sample 0 1 -1 27.125:0 28.0:1 27.5:0",
    "error 0 9 EINVAL",
    "ran 12",
    "bad 3",
)
