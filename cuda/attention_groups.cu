// Attention whose heads have more than four queries a key, by tensor cores: see attention_groups.cuh. A file of its own, so that it
// is compiled beside the other instances of the kernel.
#include "attention_kernel.cuh"

namespace parlor {

int attend_in_groups(const Device& device, const Attention& a, int64_t num_tokens, void* stream) {
    if (a.cache.head_dim == 64) return launch_attention<PARLOR_F16, kGroupHeads, 64>(device, a, num_tokens, stream);
    return launch_attention<PARLOR_F16, kGroupHeads, 128>(device, a, num_tokens, stream);
}

}  // namespace parlor
