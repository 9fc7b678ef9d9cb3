"""A simulated PVE node: directories, programs and guests that behave as Proxmox VE's do.

Everything lies below one root, runs as any user, and is made of real processes.

    from proxmox_cpu_affinity.sim import node
    from proxmox_cpu_affinity.sim.settings import GuestKind, PostStop

    host = node.create(Path("/tmp/n1"), guest=GuestKind.STANDIN)   # or node.open(Path("/tmp/n1"))
    hook = host.add_snippet("hook", "#!/bin/sh\\necho $1 $2\\n")     # -> local:snippets/hook
    host.do("create", 100, "--cores", 2, "--hookscript", hook)     # qm, its stdout; an error raises
    done = host.qm("start", 100)                                   # qm, as CompletedProcess
    host.run("pvesm", "status"), host.run("pvesh", "get", "/cluster/resources")
    host.pid(100)                                                  # the guest's process, or None
    host.path("/etc/pve/qemu-server/100.conf")                     # a file of the node
    host.configure(post_stop=PostStop.PVE8)                        # from the next command on
    host.lrm_round()                                               # what HA's manager would do now
    host.guest_poweroff(100), host.guest_reboot(100)               # what the guest does itself
    host.migrate_in(100, source="pve2")                            # a live migration to here
    with host.backing_up(100): ...                                 # while vzdump reads its disks
    host.close()                                                   # the power plug; boot() again
    host.destroy()                                                 # close, and remove the tree

From a shell the same programs are ROOT/usr/sbin/{qm,pvesm,ha-manager} and
ROOT/usr/bin/{pvesh,vzdump}.
Roots are short (`tree.ROOT_MAX`): a Unix socket's path has 107 bytes. Guests' hooks get the
caller's environment, so a test can hand them variables: host.qm("start", 100, env={...}). What
qmeventd starts (post-stop after a crash, the start of a reboot) has the environment of `create`.

With create(..., peers=("pve2",)) the node is one of a cluster; of the others there are the folders
in /etc/pve/nodes only, and what they would do in a migration is done by `arrival`.

Modules: node (outside view), layout (makes the tree), tree (paths), settings, clusterfs (.vmlist
and its like), configs (guest files and locks), edits (create, set, clone), pending, inventory
(list, status), lifecycle (start, stop), hooks, guests (command line), cpus (vCPUs and their
plugging), ramstate (RAM in a file, hibernation), snapshots, migration (away), arrival (here),
backup, firmware, standin and its parts, qmp, qmeventd, ha, tasks (workers), processes (proofs),
programs/ (the programs' command lines).
Out of scope: storage contents, networks, containers, other nodes that run, systemd scopes.
"""
