// The scheduler of host_cuda.h: fibers, barriers, shared memory and the device that the launchers see.
#include "cuda_runtime.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace host_cuda {
namespace {

constexpr size_t kStackBytes = 256 * 1024;  // AddressSanitizer makes frames large; untouched pages cost nothing
constexpr size_t kSlotBytes = 64;
constexpr size_t kStackShift = 17 * 64;     // tops of stacks a power of two apart would share a few lines of the cache
constexpr size_t kMaxDynamicBytes = 227 * 1024;
constexpr unsigned char kPoison = 0xff;     // NaN as half, float and double; -1 as an integer

enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

struct Copy {
    void* target;
    const void* source;
    size_t bytes, filled;
};

// ---- fibers: swapcontext() makes two system calls, a few instructions do as well where we have them --------------

#if defined(__x86_64__)
extern "C" void host_cuda_switch(void** saved_stack, void* stack);
asm(R"(
.text
.globl host_cuda_switch
.hidden host_cuda_switch
.type host_cuda_switch,@function
host_cuda_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx  # a return would be predicted to go back to the thread that is left
.size host_cuda_switch,.-host_cuda_switch
)");
struct Context {
    void* stack = nullptr;
    void prepare(char* memory, size_t bytes, void (*entry)()) {
        void** top = reinterpret_cast<void**>(memory + bytes) - 1;  // aligned as after a call
        *--top = reinterpret_cast<void*>(entry);
        for (int i = 0; i < 6; ++i) *--top = nullptr;
        stack = top;
    }
};
void switch_context(Context& from, Context& to) { host_cuda_switch(&from.stack, to.stack); }
#else
struct Context {
    ucontext_t context;
    void prepare(char* memory, size_t bytes, void (*entry)()) {
        getcontext(&context);
        context.uc_stack.ss_sp = memory;
        context.uc_stack.ss_size = bytes;
        context.uc_link = nullptr;
        makecontext(&context, entry, 0);
    }
};
void switch_context(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
#endif

}  // namespace

struct Thread {
    Context context;
    char* stack;
    State state;
    uint3 index;
    int number;                 // within the block
    unsigned mask;              // of the warp barrier it waits at
    Site site;                  // of the barrier
    int parity;                 // of the slot written last
    int readable;               // the slot that belongs to the barrier released last
    bool has_waited;            // for the previous kernel
    alignas(16) char slots[2][kSlotBytes];
    std::vector<Copy> copies;   // not committed yet
    std::deque<std::vector<Copy>> groups;
};

namespace {

struct SharedArray {
    Site site;
    std::unique_ptr<char[]> memory;
    void* start;
};

struct Gpu {
    int multiprocessors, compute_capability, max_dynamic_bytes;

    bool operator==(const Gpu& other) const {
        return multiprocessors == other.multiprocessors && compute_capability == other.compute_capability &&
               max_dynamic_bytes == other.max_dynamic_bytes;
    }
};

// One launch at a time, on one thread of the operating system.
struct Machine {
    std::vector<std::unique_ptr<Thread>> threads;
    Context scheduler;
    Thread* running = nullptr;
    const std::function<void()>* kernel = nullptr;
    int num_threads = 0;
    std::vector<SharedArray> arrays;
    std::unique_ptr<char[]> dynamic_memory{new char[kMaxDynamicBytes + 128]};
    char* dynamic_start = nullptr;
    std::string error;
    cudaError_t last_error = cudaSuccess;
    bool is_reversed = false;
    Gpu gpu{4, 90, kMaxDynamicBytes};
    std::vector<Gpu> gpus{gpu};  // that have been played; a GPU's number is its place
    int number = 0;
    int questions = 0;  // that the driver was asked about kernels
    std::map<std::pair<const void*, int>, int> dynamic_limits;  // of a kernel on a GPU
    const void* scheduler_stack = nullptr;
    size_t scheduler_stack_bytes = 0;
};
Machine machine;

std::string name_of(const Thread& t) {
    char text[200];
    std::snprintf(text, sizeof text, "thread (%u, %u, %u) of block (%u, %u, %u)", t.index.x, t.index.y, t.index.z,
                  blockIdx.x, blockIdx.y, blockIdx.z);
    return text;
}
std::string name_of(Site site) { return std::string(site.file) + ":" + std::to_string(site.line); }

void to_scheduler(Thread& t) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(t.state == State::kDone ? nullptr : &fake, machine.scheduler_stack,
                                   machine.scheduler_stack_bytes);
    switch_context(t.context, machine.scheduler);
    __sanitizer_finish_switch_fiber(fake, &machine.scheduler_stack, &machine.scheduler_stack_bytes);
#else
    switch_context(t.context, machine.scheduler);
#endif
}

void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &machine.scheduler_stack, &machine.scheduler_stack_bytes);
#endif
    (*machine.kernel)();
    machine.running->state = State::kDone;
    to_scheduler(*machine.running);
    std::abort();
}

void resume(Thread& t) {
    machine.running = &t;
    threadIdx = t.index;
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, t.stack, kStackBytes);
    switch_context(machine.scheduler, t.context);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
    switch_context(machine.scheduler, t.context);
#endif
}

void prepare_threads() {
    while (static_cast<int>(machine.threads.size()) < machine.num_threads) {
        machine.threads.emplace_back(new Thread);
        void* const memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) std::abort();
        machine.threads.back()->stack = static_cast<char*>(memory);
    }
    for (int i = 0; i < machine.num_threads; ++i) {
        Thread& t = *machine.threads[i];
        const unsigned number = static_cast<unsigned>(i), row = number / blockDim.x;
        t.index = {number % blockDim.x, row % blockDim.y, row / blockDim.y};
        t.number = i;
        t.state = State::kReady;
        t.parity = t.readable = 0;
        t.has_waited = false;
        t.copies.clear();
        t.groups.clear();
        t.context.prepare(t.stack, kStackBytes - i * kStackShift % (kStackBytes / 4), fiber_main);
    }
}

int in_order(int i, int count) { return machine.is_reversed ? count - 1 - i : i; }

// Let go of the lanes of a warp whose barrier every lane of its mask has reached.
bool release_warp(int first, int count) {
    bool released = false;
    for (int i = 0; i < count; ++i) {
        Thread& t = *machine.threads[first + i];
        if (t.state != State::kAtWarpBarrier) continue;
        bool is_complete = true;
        for (int j = 0; j < kWarp && is_complete; ++j) {
            if (!(t.mask >> j & 1)) continue;
            const Thread* const other = j < count ? machine.threads[first + j].get() : nullptr;
            is_complete = other && other->state == State::kAtWarpBarrier && other->mask == t.mask &&
                          other->site.line == t.site.line && other->site.file == t.site.file;
        }
        if (!is_complete) continue;
        const unsigned mask = t.mask;
        for (int j = 0; j < count; ++j) {
            Thread& other = *machine.threads[first + j];
            if (!(mask >> j & 1)) continue;
            other.state = State::kReady;
            other.readable = other.parity;
        }
        released = true;
    }
    return released;
}

bool run_warp(int first, int count) {
    bool has_run = false;
    do {
        for (int i = 0; i < count; ++i) {
            Thread& t = *machine.threads[first + in_order(i, count)];
            if (t.state != State::kReady) continue;
            resume(t);
            has_run = true;
        }
    } while (release_warp(first, count));
    return has_run;
}

std::string describe_deadlock() {
    const Thread *waiting = nullptr, *other = nullptr;
    for (int i = 0; i < machine.num_threads; ++i) {
        const Thread& t = *machine.threads[i];
        if (t.state != State::kDone && !waiting) waiting = &t;
    }
    for (int i = 0; i < machine.num_threads; ++i) {
        const Thread& t = *machine.threads[i];
        if (t.state != waiting->state || t.site.line != waiting->site.line) other = &t;
    }
    std::string text = "divergent barrier: " + name_of(*waiting) + " waits at " + name_of(waiting->site);
    if (!other) return text;
    text += ", " + name_of(*other);
    return text + (other->state == State::kDone ? " has ended" : " waits at " + name_of(other->site));
}

// Empty if the block has run to its end, else what is wrong.
std::string run_block() {
    const int warps = (machine.num_threads + kWarp - 1) / kWarp;
    for (;;) {
        bool has_run = false;
        for (int w = 0; w < warps; ++w) {
            const int first = in_order(w, warps) * kWarp;
            has_run |= run_warp(first, std::min(kWarp, machine.num_threads - first));
        }
        int done = 0, waiting = 0;
        for (int i = 0; i < machine.num_threads; ++i) {
            const Thread& t = *machine.threads[i];
            done += t.state == State::kDone;
            waiting += t.state == State::kAtBlockBarrier && t.site.line == machine.threads[0]->site.line &&
                       t.site.file == machine.threads[0]->site.file;
        }
        if (done == machine.num_threads) return {};
        if (waiting == machine.num_threads) {
            for (int i = 0; i < machine.num_threads; ++i) machine.threads[i]->state = State::kReady;
        } else if (!has_run) {
            return describe_deadlock();
        }
    }
}

void poison_shared(size_t dynamic_bytes) {
    machine.arrays.clear();
    char* const start = reinterpret_cast<char*>(
        (reinterpret_cast<uintptr_t>(machine.dynamic_memory.get()) + 127) / 128 * 128);
    machine.dynamic_start = start;
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(start, kMaxDynamicBytes);
#endif
    std::memset(start, kPoison, dynamic_bytes);
#if defined(__SANITIZE_ADDRESS__)
    ASAN_POISON_MEMORY_REGION(start + dynamic_bytes, kMaxDynamicBytes - dynamic_bytes);
#endif
}

std::string check_end(const Thread& t, bool is_dependent) {
    if (is_dependent && !t.has_waited)
        return name_of(t) + " of a dependent launch never waited for the previous kernel";
    const bool has_copies = std::any_of(t.groups.begin(), t.groups.end(), [](const auto& group) { return !group.empty(); });
    if (!t.copies.empty() || has_copies) return name_of(t) + " ended before its asynchronous copies";
    return {};
}

}  // namespace

Thread& current() { return *machine.running; }
int lane() { return machine.running->number % kWarp; }

void sync_threads(Site site) {
    Thread& t = current();
    t.site = site;
    t.state = State::kAtBlockBarrier;
    to_scheduler(t);
}

void publish(unsigned mask, const void* value, size_t bytes, Site site) {
    Thread& t = current();
    t.parity ^= 1;
    if (bytes > kSlotBytes) std::abort();
    if (bytes) std::memcpy(t.slots[t.parity], value, bytes);
    t.site = site;
    t.mask = mask;
    t.state = State::kAtWarpBarrier;
    to_scheduler(t);
}

// Every lane of a barrier runs before the next one of its warp is released, so two slots are enough.
const void* published(int lane) {
    const Thread& t = *machine.threads[current().number / kWarp * kWarp + lane];
    return t.slots[t.readable];
}

void* shared_array(size_t bytes, size_t alignment, Site site) {
    for (const SharedArray& array : machine.arrays)
        if (array.site.line == site.line && array.site.file == site.file) return array.start;
    SharedArray array{site, std::unique_ptr<char[]>(new char[bytes + alignment]), nullptr};
    const uintptr_t address = reinterpret_cast<uintptr_t>(array.memory.get());
    array.start = reinterpret_cast<void*>((address + alignment - 1) / alignment * alignment);
    std::memset(array.memory.get(), kPoison, bytes + alignment);
#if defined(__SANITIZE_ADDRESS__)
    char* const end = static_cast<char*>(array.start) + bytes;
    ASAN_POISON_MEMORY_REGION(end, array.memory.get() + bytes + alignment - end);
#endif
    machine.arrays.push_back(std::move(array));
    return machine.arrays.back().start;
}

void* dynamic_shared() { return machine.dynamic_start; }

void copy_async(void* target, const void* source, size_t bytes, size_t filled) {
    current().copies.push_back({target, source, bytes, filled});
}
void commit_async() {
    Thread& t = current();
    t.groups.push_back(std::move(t.copies));
    t.copies.clear();
}
void wait_async(int groups_left) {
    Thread& t = current();
    while (static_cast<int>(t.groups.size()) > groups_left) {
        for (const Copy& copy : t.groups.front()) {
            std::memcpy(copy.target, copy.source, copy.filled);
            std::memset(static_cast<char*>(copy.target) + copy.filled, 0, copy.bytes - copy.filled);
        }
        t.groups.pop_front();
    }
}
void wait_for_previous_kernel() { current().has_waited = true; }

int launch(const std::function<void()>& kernel, const void* function, dim3 grid, dim3 block, size_t dynamic_bytes,
           bool is_dependent) {
    const uint64_t threads = uint64_t{block.x} * block.y * block.z;
    const auto limit = machine.dynamic_limits.find({function, machine.number});
    const size_t allowed = limit == machine.dynamic_limits.end() ? 48 * 1024 : static_cast<size_t>(limit->second);
    if (threads < 1 || threads > 1024 || block.z > 64 || grid.x < 1 || grid.y < 1 || grid.z < 1 ||
        grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        return machine.last_error = cudaErrorInvalidConfiguration;
    if (dynamic_bytes > allowed) return machine.last_error = cudaErrorInvalidValue;
    machine.kernel = &kernel;
    gridDim = grid;
    blockDim = block;
    machine.num_threads = static_cast<int>(threads);
    const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
    std::string error;
    for (uint64_t i = 0; i < blocks && error.empty(); ++i) {
        const uint64_t number = machine.is_reversed ? blocks - 1 - i : i;
        blockIdx = {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
                               static_cast<unsigned>(number / grid.x / grid.y)};
        poison_shared(dynamic_bytes);
        prepare_threads();
        error = run_block();
        for (int t = 0; t < machine.num_threads && error.empty(); ++t)
            error = check_end(*machine.threads[t], is_dependent);
    }
    machine.arrays.clear();
    if (error.empty()) return cudaSuccess;
    machine.error = error;
    return machine.last_error = cudaErrorLaunchFailure;
}

}  // namespace host_cuda

using host_cuda::machine;

cudaError_t cudaGetLastError() { return std::exchange(machine.last_error, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorInvalidConfiguration: return "invalid configuration argument";
        case cudaErrorLaunchFailure: return machine.error.c_str();
        default: return "unknown error";
    }
}
cudaError_t cudaGetDevice(int* device) { return *device = machine.number, cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
        case cudaDevAttrMultiProcessorCount: *value = machine.gpu.multiprocessors; return cudaSuccess;
        case cudaDevAttrComputeCapabilityMajor: *value = machine.gpu.compute_capability / 10; return cudaSuccess;
        case cudaDevAttrComputeCapabilityMinor: *value = machine.gpu.compute_capability % 10; return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = machine.gpu.max_dynamic_bytes; return cudaSuccess;
        case cudaDevAttrL2CacheSize: *value = 1 << 20; return cudaSuccess;
    }
    return cudaErrorInvalidValue;
}
// As if registers never were what is short.
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int threads, size_t shared_bytes) {
    ++machine.questions;
    const int by_threads = (machine.gpu.compute_capability < 80 ? 1024 : 2048) / threads;
    const size_t by_memory = shared_bytes ? static_cast<size_t>(machine.gpu.max_dynamic_bytes) / shared_bytes : 2048;
    *blocks = static_cast<size_t>(by_threads) < by_memory ? by_threads : static_cast<int>(by_memory);
    return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int bytes) {
    ++machine.questions;
    if (bytes > machine.gpu.max_dynamic_bytes) return cudaErrorInvalidValue;
    machine.dynamic_limits[{kernel, machine.number}] = bytes;
    return cudaSuccess;
}

// For tests: the order of lanes, warps and blocks, and the device that is played.
extern "C" __attribute__((visibility("default"))) void host_cuda_configure(int is_reversed, int multiprocessors,
                                                                           int compute_capability,
                                                                           int max_dynamic_bytes) {
    machine.is_reversed = is_reversed != 0;
    machine.gpu = {multiprocessors, compute_capability, max_dynamic_bytes};
    const auto known = std::find(machine.gpus.begin(), machine.gpus.end(), machine.gpu);
    machine.number = static_cast<int>(known - machine.gpus.begin());
    if (known == machine.gpus.end()) machine.gpus.push_back(machine.gpu);
}
extern "C" __attribute__((visibility("default"))) int host_cuda_questions() { return machine.questions; }
