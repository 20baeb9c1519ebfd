#include "cpu/engine.hpp"

#include "cpu/run.hpp"

namespace mpsnn_loss::cpu {
namespace {

class CpuEngine final : public Engine {
 public:
  std::string name() const override { return "CPU"; }
  std::string supports(const Need&) const override { return {}; }  // everything
  void compute(const Computation& computation, Waiting) override { run(computation); }
};

}  // namespace

std::shared_ptr<Engine> make_engine() { return std::make_shared<CpuEngine>(); }

}  // namespace mpsnn_loss::cpu
