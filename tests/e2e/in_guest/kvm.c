/* Passes for QEMU where QEMU would be too slow: kvm -pidfile FILE -smp N -daemonize -record FILE
 *
 * It has QEMU's threads by name, its pidfile and its way of daemonizing, and notes on which CPUs
 * it has run from its first instruction on. SIGUSR1 is one thread more ("worker"), SIGUSR2 one
 * child more. For tests only; at most 63 vCPUs and 64 CPUs.
 *
 * The record is an array of 64-bit masks: what the process was allowed when it began, where its
 * main thread has run, where threads and children of later have run, and each vCPU thread. The
 * last word counts the rounds of a load (-load N): vCPU 0 computes and waits for an I/O thread's
 * answer, while N more I/O threads compute without end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { MAX_VCPUS = 63 };
enum { BEGAN, MAIN, LATER, FIRST_VCPU, ROUNDS = FIRST_VCPU + MAX_VCPUS, LENGTH };

static _Atomic uint64_t *record;
static const struct timespec pause_time = {.tv_nsec = 100 * 1000 * 1000};

struct part {
	char name[16];
	int slot; /* in the record; none if negative */
};

static void note(int slot)
{
	int cpu = sched_getcpu();

	if (slot >= 0 && cpu >= 0 && cpu < 64)
		atomic_fetch_or(&record[slot], UINT64_C(1) << cpu);
}

static void fail(const char *what)
{
	fprintf(stderr, "kvm: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void open_record(const char *path)
{
	size_t size = LENGTH * sizeof *record;
	int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	cpu_set_t allowed;

	if (file < 0 || ftruncate(file, (off_t)size) < 0)
		fail(path);
	record = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (record == MAP_FAILED || sched_getaffinity(0, sizeof allowed, &allowed) < 0)
		fail(path);
	close(file);
	for (int cpu = 0; cpu < 64; cpu++)
		if (CPU_ISSET(cpu, &allowed))
			record[BEGAN] |= UINT64_C(1) << cpu;
}

/* As QEMU: locked for as long as it lives, mode 0600. */
static void write_pidfile(const char *path)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (file < 0 || fcntl(file, F_OFD_SETLK, &whole) < 0 || ftruncate(file, 0) < 0 ||
	    dprintf(file, "%d\n", (int)getpid()) < 0)
		fail("cannot create PID file");
}

static void *live(void *argument)
{
	struct part *part = argument;

	prctl(PR_SET_NAME, part->name);
	for (;;) {
		note(part->slot);
		nanosleep(&pause_time, NULL);
	}
	return NULL;
}

static void start_thread(const char *name, int slot)
{
	struct part *part = malloc(sizeof *part);
	pthread_attr_t attributes;
	pthread_t thread;

	if (part == NULL)
		fail("no memory");
	snprintf(part->name, sizeof part->name, "%s", name);
	part->slot = slot;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 * 1024);
	errno = pthread_create(&thread, &attributes, live, part);
	if (errno != 0)
		fail(name);
}

/* As QEMU's helpers it does not outlive the guest. */
static void start_child(void)
{
	struct part part = {.name = "helper", .slot = LATER};

	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		live(&part);
	}
}

/* Until SIGTERM. */
static void serve(const sigset_t *signals)
{
	for (;;) {
		note(MAIN);
		switch (sigtimedwait(signals, NULL, &pause_time)) {
		case SIGTERM:
			return;
		case SIGUSR1:
			start_thread("worker", LATER);
			break;
		case SIGUSR2:
			start_child();
			break;
		}
	}
}

static void compute(int steps)
{
	for (volatile int step = 0; step < steps; step++)
		;
}

struct wire {
	int asks[2], answers[2];
};

static void pass(int from, int to, int steps)
{
	char word = 0;

	if (from >= 0 && read(from, &word, 1) != 1)
		_exit(1);
	compute(steps);
	if (write(to, &word, 1) != 1)
		_exit(1);
}

static void *answer(void *argument)
{
	struct wire *wire = argument;

	for (;;)
		pass(wire->asks[0], wire->answers[1], 2000);
	return NULL;
}

static void *ask(void *argument)
{
	struct wire *wire = argument;
	char word;

	prctl(PR_SET_NAME, "CPU 0/KVM");
	for (;;) {
		pass(-1, wire->asks[1], 20000);
		if (read(wire->answers[0], &word, 1) != 1)
			_exit(1);
		record[ROUNDS]++;
	}
	return NULL;
}

static void *burn(void *argument)
{
	(void)argument;
	for (;;)
		compute(1000000);
	return NULL;
}

/* In place of the first vCPU's thread. */
static void load(int burners)
{
	static struct wire wire;
	pthread_t thread;

	if (pipe(wire.asks) < 0 || pipe(wire.answers) < 0)
		fail("pipe");
	pthread_create(&thread, NULL, ask, &wire);
	pthread_create(&thread, NULL, answer, &wire);
	while (burners-- > 0)
		pthread_create(&thread, NULL, burn, NULL);
}

/* The caller waits until the machine is set up; what goes on is a child of init. */
static int daemonize(void)
{
	int ends[2];
	char word;

	if (pipe(ends) < 0)
		fail("pipe");
	if (fork() != 0) {
		close(ends[1]);
		_exit(read(ends[0], &word, 1) == 1 ? 0 : 1);
	}
	close(ends[0]);
	setsid();
	if (fork() != 0)
		_exit(0);
	return ends[1];
}

static void detach(int up)
{
	int null = open("/dev/null", O_RDWR);

	if (chdir("/") < 0 || null < 0)
		fail("/dev/null");
	for (int stream = 0; stream < 3; stream++)
		dup2(null, stream);
	close(null);
	if (write(up, "", 1) != 1)
		_exit(1);
	close(up);
}

/* Memory of the guest, there from now on: so many MiB. */
static void touch(const char *mib)
{
	size_t size = (size_t)atoi(mib) << 20;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		fail("no memory");
	memset(memory, 1, size);
}

static const char *option(char **words, const char *name)
{
	for (; *words != NULL; words++)
		if (strcmp(*words, name) == 0)
			return words[1] == NULL ? "" : words[1];
	return NULL;
}

int main(int count, char **words)
{
	const char *pidfile = option(words, "-pidfile"), *path = option(words, "-record");
	const char *smp = option(words, "-smp");
	int vcpus = smp == NULL ? 1 : atoi(smp), up = -1;
	char name[16];
	sigset_t signals;

	if (count < 2 || pidfile == NULL || path == NULL || vcpus < 1 || vcpus > MAX_VCPUS) {
		fprintf(stderr, "kvm: needs -pidfile FILE -record FILE, at most %d vCPUs\n", MAX_VCPUS);
		return 1;
	}
	if (option(words, "-fail") != NULL) {
		sleep(3); /* as QEMU, which finds out after a while */
		fprintf(stderr, "kvm: as asked\n");
		return 1;
	}
	open_record(path);
	note(MAIN);
	if (option(words, "-daemonize") != NULL)
		up = daemonize();
	if (option(words, "-touch") != NULL)
		touch(option(words, "-touch"));
	write_pidfile(pidfile);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGUSR2);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	start_thread("call_rcu", -1);
	start_thread("IO mon_iothread", -1);
	start_thread("kvm", -1); /* an I/O thread: its own name would be too long */
	if (option(words, "-load") != NULL)
		load(atoi(option(words, "-load")));
	for (int vcpu = option(words, "-load") != NULL; vcpu < vcpus; vcpu++) {
		snprintf(name, sizeof name, "CPU %d/KVM", vcpu);
		start_thread(name, FIRST_VCPU + vcpu);
	}
	if (up >= 0)
		detach(up);
	serve(&signals);
	unlink(pidfile);
	return 0;
}
