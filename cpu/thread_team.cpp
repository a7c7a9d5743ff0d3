// The thread team: a gate that the caller opens for one region and shuts behind it. Threads count themselves in.
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
constexpr size_t kHugePage = 2 << 20;

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

constexpr uint64_t kOpen = 1 << 15, kWithin = kOpen - 1, kRegion = kOpen << 1;  // of State::gate

// Memory that grows. From the size of a huge page on it lies on such pages, where the system lends them: what is staged and
// unpacked for the tiles is more than the processor has translations for at 4 KiB each.
struct Scratch {
    char* start = nullptr;
    size_t bytes = 0, alignment = kAlignment;

    ~Scratch() { release(); }

    void release() { ::operator delete(start, std::align_val_t{alignment}); }

    bool grow(size_t wanted) {
        if (wanted <= bytes) return true;
        wanted = std::max(wanted, bytes * 2);
        release();
        alignment = wanted >= kHugePage ? kHugePage : kAlignment;
        wanted = (wanted + alignment - 1) / alignment * alignment;
        start = static_cast<char*>(::operator new(wanted, std::align_val_t{alignment}, std::nothrow));
        bytes = start ? wanted : 0;
        if (start && alignment == kHugePage) (void)advise_huge_pages(start, static_cast<int64_t>(bytes));  // advice, no more
        return start != nullptr;
    }
};

struct State {
    std::mutex one_caller;  // two Python threads take turns
    std::vector<std::thread> threads;
    int size = 1;

    alignas(64) std::atomic<uint64_t> gate{0};  // region * kRegion, kOpen, threads within
    alignas(64) std::atomic<int> sleepers{0};
    std::atomic<bool> stopping{false};
    std::mutex sleep_mutex;
    std::condition_variable wake;

    ThreadTeam::Body body = nullptr;
    void* context = nullptr;
};

// Never destroyed: the threads end with the process, after every destructor.
State& state() {
    static State* const instance = new State;
    return *instance;
}

void work_on_part(State& s, int part) {
    role = Role::kInBody;
    s.body(s.context, part);
    role = Role::kOutside;
}

void sleep_until_region_ends(State& s, uint64_t region) {
    std::unique_lock<std::mutex> lock(s.sleep_mutex);
    s.sleepers.fetch_add(1);
    s.wake.wait(lock, [&] { return s.gate.load() / kRegion != region; });
    s.sleepers.fetch_sub(1);
}

// Count this thread in if the gate is open; the region, in or not.
uint64_t enter(State& s, bool* is_within) {
    uint64_t gate = s.gate.load(std::memory_order_acquire);
    do {
        *is_within = (gate & kOpen) != 0;
    } while (*is_within && !s.gate.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel));
    return gate / kRegion;
}

void thread_main(State& s, int part, uint64_t region) {
    for (;;) {
        if (!spin_until([&] { return s.gate.load(std::memory_order_acquire) / kRegion != region; }))
            sleep_until_region_ends(s, region);
        if (s.stopping.load()) return;
        bool is_within;
        region = enter(s, &is_within);
        if (!is_within) continue;  // late
        work_on_part(s, part);
        s.gate.fetch_sub(1, std::memory_order_acq_rel);
    }
}

// Begin the next region; nobody is within.
void begin_region(State& s, uint64_t open) {
    s.gate.store((s.gate.load() / kRegion + 1) * kRegion + open);  // in one order with `sleepers`: no sleeper is missed
    if (s.sleepers.load() > 0) {
        const std::lock_guard<std::mutex> lock(s.sleep_mutex);
        s.wake.notify_all();
    }
}

void stop_threads(State& s) {
    s.stopping.store(true);
    begin_region(s, 0);
    for (std::thread& thread : s.threads) thread.join();
    s.threads.clear();
    s.stopping.store(false);
    s.size = 1;
}

void run_region(State& s, ThreadTeam::Body body, void* context) {
    const std::lock_guard<std::mutex> lock(s.one_caller);
    s.body = body;
    s.context = context;
    if (s.size > 1) begin_region(s, kOpen);
    work_on_part(s, 0);
    s.gate.fetch_and(~kOpen, std::memory_order_acq_rel);
    wait_until([&] { return (s.gate.load(std::memory_order_acquire) & kWithin) == 0; });
}

}  // namespace

Work::Work(int64_t count, int64_t grain, int num_threads) : count_(count), grain_(grain), num_threads_(num_threads) {}

int64_t Work::piece(int64_t begin) const {
    const int64_t left = count_ - begin;
    if (num_threads_ == 1 || left <= grain_) return left;
    return std::max(grain_, left / (2 * num_threads_) / grain_ * grain_);
}

bool Work::take(int64_t* begin, int64_t* end) {
    *begin = next_.load(std::memory_order_relaxed);
    do {
        if (*begin >= count_) return false;
        *end = *begin + piece(*begin);
    } while (!next_.compare_exchange_weak(*begin, *end, std::memory_order_relaxed));
    return true;
}

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
    const uint64_t region = s.gate.load() / kRegion;
    for (int part = 1; part < num_threads; ++part) {
        s.threads.emplace_back(thread_main, std::ref(s), part, region);
        s.size = part + 1;  // what exists, should the next one fail to start
    }
}

void ThreadTeam::run_body(Body body, void* context) {
    if (role == Role::kOutside) return run_region(state(), body, context);
    const Role outer = role;
    role = Role::kNested;
    body(context, 0);
    role = outer;
}

void* ThreadTeam::scratch(size_t bytes) {
    static thread_local Scratch outside, within;  // an operation's own must outlast what its bodies ask for
    Scratch& scratch = role == Role::kOutside ? outside : within;
    return scratch.grow(std::max<size_t>(bytes, 1)) ? scratch.start : nullptr;  // null means that it failed
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
