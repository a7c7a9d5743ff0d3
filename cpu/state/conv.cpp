// Short causal convolutions, channel by channel.
//
// For prompts bound by reading size inputs and size weights a number from L1, and by exp() where there is a silu; for
// one token by reading the weights. An item is a block of channels of a sequence. Rows go from the last to the first,
// so that out may be x: row t needs rows before it only.
// Reference: short_conv() in model/kernels/reference/states.py.
#include <algorithm>

#include "simd.h"
#include "state.h"
#include "thread_team.h"

namespace parlor {
namespace PARLOR_ISA_NS {
namespace {

constexpr int64_t kBlock = 256;  // channels of an item

Vec silu(Vec a) { return a / (set1(1.0f) + exp(zero() - a)); }

// The channels first .. first + count - 1 of a sequence.
class Block {
  public:
    Block(const ConvArgs& a, int64_t s, int64_t first)
        : a_(a), sequence_(a.sequences), s_(s), first_(first), count_(std::min(kBlock, a.channels - first)) {}

    void run() const {
        const int64_t begin = sequence_.first_row(s_), end = sequence_.last_row(s_);
        if (begin == end) return;
        alignas(64) float last[(kMaxConvSize - 1) * kBlock];
        keep(end - 1, last, kBlock);
        for (int64_t t = end - 1; t >= begin; --t) {
            if (float* const kept = sequence_.kept_state(t)) keep(t, kept + first_, a_.channels);
            compute(t);
        }
        float* const state = sequence_.state(s_) + first_;
        for (int64_t j = 0; j + 1 < a_.size; ++j) std::copy_n(last + j * kBlock, count_, state + j * a_.channels);
    }

  private:
    // The inputs of row t, which may lie before this step: in the state, or before the sequence.
    const float* input(int64_t t) const {
        static constexpr float kNothing[kBlock] = {};
        const int64_t back = t - sequence_.first_row(s_);
        if (back >= 0) return a_.x + t * a_.x_stride + first_;
        if (sequence_.begins(s_)) return kNothing;
        return sequence_.state(s_) + (a_.size - 1 + back) * a_.channels + first_;
    }

    // The state after row t.
    void keep(int64_t t, float* to, int64_t stride) const {
        for (int64_t j = 0; j + 1 < a_.size; ++j) std::copy_n(input(t - (a_.size - 2) + j), count_, to + j * stride);
    }

    void compute(int64_t t) const {
        const float* inputs[kMaxConvSize];
        for (int64_t j = 0; j < a_.size; ++j) inputs[j] = input(t - (a_.size - 1) + j);
        const float* const weight = a_.weight + first_;
        const float* const bias = a_.bias ? a_.bias + first_ : nullptr;
        float* const out = a_.out + t * a_.out_stride + first_;
        for_lanes(count_,
                  [&](int64_t i) {
                      Vec sum = bias ? load(bias + i) : zero();
                      for (int64_t j = 0; j < a_.size; ++j)
                          sum = fma(load(inputs[j] + i), load(weight + j * a_.channels + i), sum);
                      store(out + i, a_.has_silu ? silu(sum) : sum);
                  },
                  [&](int64_t i, int64_t n) {
                      Vec sum = bias ? load_n(bias + i, n) : zero();
                      for (int64_t j = 0; j < a_.size; ++j)
                          sum = fma(load_n(inputs[j] + i, n), load_n(weight + j * a_.channels + i, n), sum);
                      store_n(out + i, a_.has_silu ? silu(sum) : sum, n);
                  });
    }

    const ConvArgs& a_;
    const Sequences& sequence_;
    const int64_t s_, first_, count_;
};

}  // namespace

void convolve(const ConvArgs& a) {
    const int64_t blocks = (a.channels + kBlock - 1) / kBlock;
    team().parallel_for(a.sequences.count * blocks, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i)
            if (!a.sequences.is_padding(i / blocks)) Block(a, i / blocks, i % blocks * kBlock).run();
    });
}

}  // namespace PARLOR_ISA_NS
}  // namespace parlor
