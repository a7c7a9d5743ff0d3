// The thread team: a generation counter starts a region, a counter of threads still at work ends it.
//
// Bound by the hand-over: about a microsecond while the threads still spin, a system call each when they sleep.
#include "thread_team.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "isa.h"

namespace parlor {
namespace {

constexpr int kMaxThreads = 256;
constexpr auto kSpinTime = std::chrono::microseconds(100);  // longer than Python needs between two operations
constexpr size_t kAlignment = 64;

void pause_briefly() {
#if PARLOR_X86
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// Spin until done() or until kSpinTime is over; whether done() came true.
template <class Condition>
bool spin_until(Condition done) {
    const auto start = std::chrono::steady_clock::now();
    do {
        for (int i = 0; i < 32; ++i) {
            if (done()) return true;
            pause_briefly();
        }
    } while (std::chrono::steady_clock::now() - start < kSpinTime);
    return done();
}

// As above, but it waits as long as it takes; the rest of the machine may need the core meanwhile.
template <class Condition>
void wait_until(Condition done) {
    if (spin_until(done)) return;
    while (!done()) std::this_thread::yield();
}

// What the calling thread is doing for the team.
enum class Role { kOutside, kInBody, kNested };
thread_local Role role = Role::kOutside;

struct State {
    std::mutex one_caller;  // two Python threads take turns
    std::vector<std::thread> threads;
    int size = 1;

    alignas(64) std::atomic<uint64_t> generation{0};
    alignas(64) std::atomic<int> at_work{0};
    alignas(64) std::atomic<int> arrived{0};
    alignas(64) std::atomic<uint32_t> barrier_round{0};
    std::atomic<int> sleepers{0};
    std::atomic<bool> stopping{false};
    std::mutex sleep_mutex;
    std::condition_variable wake;

    ThreadTeam::Body body = nullptr;
    void* context = nullptr;

    char* scratch = nullptr;
    size_t scratch_bytes = 0;
};

// Never destroyed: the threads end with the process, after every destructor.
State& state() {
    static State* const instance = new State;
    return *instance;
}

void barrier_of(State& s) {
    const uint32_t round = s.barrier_round.load(std::memory_order_relaxed);
    if (s.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == s.size) {
        s.arrived.store(0, std::memory_order_relaxed);
        s.barrier_round.store(round + 1, std::memory_order_release);
    } else {
        wait_until([&] { return s.barrier_round.load(std::memory_order_acquire) != round; });
    }
}

void work_on_part(State& s, int part) {
    role = Role::kInBody;
    s.body(s.context, part, s.size);
    role = Role::kOutside;
}

void sleep_until_generation_leaves(State& s, uint64_t seen) {
    std::unique_lock<std::mutex> lock(s.sleep_mutex);
    s.sleepers.fetch_add(1);
    s.wake.wait(lock, [&] { return s.generation.load() != seen; });
    s.sleepers.fetch_sub(1);
}

void thread_main(State& s, int part, uint64_t seen) {
    for (;;) {
        if (!spin_until([&] { return s.generation.load(std::memory_order_acquire) != seen; }))
            sleep_until_generation_leaves(s, seen);
        ++seen;  // the caller waits for this thread before it starts another generation
        if (s.stopping.load()) return;
        work_on_part(s, part);
        s.at_work.fetch_sub(1, std::memory_order_acq_rel);
    }
}

void start_generation(State& s) {
    s.generation.fetch_add(1);  // sequentially consistent with `sleepers`, so no sleeper is missed
    if (s.sleepers.load() > 0) {
        const std::lock_guard<std::mutex> lock(s.sleep_mutex);
        s.wake.notify_all();
    }
}

void stop_threads(State& s) {
    s.stopping.store(true);
    start_generation(s);
    for (std::thread& thread : s.threads) thread.join();
    s.threads.clear();
    s.stopping.store(false);
    s.size = 1;
}

void run_region(State& s, ThreadTeam::Body body, void* context) {
    const std::lock_guard<std::mutex> lock(s.one_caller);
    s.body = body;
    s.context = context;
    if (s.size > 1) {
        s.at_work.store(s.size - 1, std::memory_order_relaxed);
        start_generation(s);
    }
    work_on_part(s, 0);
    wait_until([&] { return s.at_work.load(std::memory_order_acquire) == 0; });
}

bool grow_scratch(State& s, size_t bytes) {
    if (bytes <= s.scratch_bytes) return true;
    bytes = std::max(bytes, s.scratch_bytes * 2);
    ::operator delete(s.scratch, std::align_val_t{kAlignment});
    s.scratch = static_cast<char*>(::operator new(bytes, std::align_val_t{kAlignment}, std::nothrow));
    s.scratch_bytes = s.scratch ? bytes : 0;
    return s.scratch != nullptr;
}

}  // namespace

ThreadTeam& team() {
    static ThreadTeam instance;
    return instance;
}

int ThreadTeam::size() const { return role == Role::kOutside ? state().size : 1; }

void ThreadTeam::set_size(int num_threads) {
    State& s = state();
    const std::lock_guard<std::mutex> lock(s.one_caller);
    if (num_threads == s.size) return;
    stop_threads(s);
    const uint64_t seen = s.generation.load();
    for (int part = 1; part < num_threads; ++part) {
        s.threads.emplace_back(thread_main, std::ref(s), part, seen);
        s.size = part + 1;  // what exists, should the next one fail to start
    }
}

void ThreadTeam::run_body(Body body, void* context) {
    if (role == Role::kOutside) return run_region(state(), body, context);
    const Role outer = role;
    role = Role::kNested;
    body(context, 0, 1);
    role = outer;
}

void ThreadTeam::barrier() {
    if (role == Role::kInBody) barrier_of(state());
}

void* ThreadTeam::scratch(size_t bytes) {
    State& s = state();
    return grow_scratch(s, bytes) ? s.scratch : nullptr;
}

}  // namespace parlor

extern "C" int set_threads(int num_threads) {
    if (num_threads < 1 || num_threads > parlor::kMaxThreads) return PARLOR_ERROR_SIZE;
    try {
        parlor::team().set_size(num_threads);
    } catch (...) {  // the system has no more threads; the team keeps those it got
        return PARLOR_ERROR_MEMORY;
    }
    return PARLOR_OK;
}

extern "C" int get_threads(void) { return parlor::state().size; }
