// The threads that share each operation: made once, spinning briefly between operations, then asleep.
//
//   team().parallel_for(n, [&](int64_t begin, int64_t end, int part) { ... });    0..n, piece by piece
//   team().run([&](int part) { while (work.take(...)) ... });                     the same with memory for each thread
//
// Threads take work as they come, large pieces first, and the caller waits for nobody who has not begun: a core that
// is slow (efficiency cores, a busy neighbour) or late (the browser has it) costs its own share and no more. So a
// result must not depend on who computes what. Exceptions must not leave a body.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace parlor {

// 0..count, taken by several threads in pieces that are multiples of `grain` (but for the last): each the 2n-th part
// of what is left, n being the threads.
class Work {
  public:
    Work(int64_t count, int64_t grain, int num_threads);

    bool take(int64_t* begin, int64_t* end);  // false: nothing is left
    int64_t largest() const { return piece(0); }

  private:
    int64_t piece(int64_t begin) const;

    const int64_t count_, grain_, num_threads_;
    alignas(64) std::atomic<int64_t> next_{0};
};

class ThreadTeam {
  public:
    using Body = void (*)(void* context, int part);

    int size() const;
    void set_size(int num_threads);   // not while an operation runs

    // body(part) on this thread (part 0) and, once at most, on each of the others that comes before this one is done
    // with it; then wait for those. From inside another body it is body(0) on the calling thread alone, size() being 1.
    template <class Function>
    void run(Function&& body) {
        using Plain = std::remove_reference_t<Function>;
        run_body([](void* context, int part) { (*static_cast<Plain*>(context))(part); },
                 const_cast<void*>(static_cast<const void*>(&body)));
    }

    // body(begin, end, part) until all of 0..n is done. A single piece is done by the caller and wakes nobody.
    template <class Function>
    void parallel_for(int64_t n, Function&& body, int64_t grain = 1) {
        if (n <= 0) return;
        if (n <= grain) return body(int64_t{0}, n, 0);
        Work work(n, grain, size());
        run([&](int part) {
            for (int64_t begin, end; work.take(&begin, &end);) body(begin, end, part);
        });
    }

    // At least `bytes`, 64-byte aligned, contents undefined; valid until the next scratch() call. nullptr: out of memory.
    // Grows only. The calling thread's own, one within bodies and another outside of them: operations of two threads take
    // turns at each run(), not as a whole.
    void* scratch(size_t bytes);

  private:
    void run_body(Body body, void* context);
};

ThreadTeam& team();

}  // namespace parlor
