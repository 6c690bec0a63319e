// A node of a robot that runs a liquid network in the callback of its sensor, without Python.
//
// In ROS 2 the callback is what create_subscription takes, the stamp is the header's, and publish is
// a publisher's: the rest stays as it is. Here a loop plays the middleware. Messages come when they
// come; the network takes the time that really passed since the last one.
#include <fastltc/fastltc.hpp>

#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

struct Message {
  double stamp;  // seconds
  std::vector<float> values;
};

class SensorNode {
 public:
  using Publish = std::function<void(const Message&)>;

  SensorNode(const std::string& model, Publish publish)
      : session_(fastltc::Network(model)),
        publish_(std::move(publish)),
        // Everything is allocated here: the callback does not.
        command_{0.0, std::vector<float>(session_.network().outputs())} {}

  size_t inputs() const { return session_.network().inputs(); }

  // Allocates nothing and takes no lock: may run in a thread of real time.
  void on_message(const Message& message) {
    if (message.values.size() != inputs()) return;  // not of this sensor
    // A stream that begins, or comes back after a gap, starts from zero, with one unit of time.
    const double elapsed = message.stamp - command_.stamp;
    const bool fresh = !started_ || elapsed < 0 || elapsed > kLongestGap;
    if (fresh) session_.reset();
    const double dt = fresh ? 1.0 : elapsed / session_.network().time_unit();
    try {
      session_.step(message.values.data(), static_cast<float>(dt), command_.values.data());
    } catch (const fastltc::Error& error) {
      // A reading that is NaN, as drivers give them: nothing has changed.
      std::fprintf(stderr, "left out: %s\n", error.what());
      return;
    }
    started_ = true;
    command_.stamp = message.stamp;
    publish_(command_);
  }

 private:
  static constexpr double kLongestGap = 5.0;  // seconds

  fastltc::Session session_;
  Publish publish_;
  Message command_;
  bool started_ = false;
};

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: %s MODEL.safetensors\n", arguments[0]);
    return 2;
  }
  try {
    int published = 0;
    SensorNode node(arguments[1], [&](const Message& command) {
      if (published++ % 100 == 0) {
        std::printf("%.3f s: %.6f\n", command.stamp, static_cast<double>(command.values[0]));
      }
    });
    // The middleware: about a hundred messages a second, never quite when they should come.
    std::mt19937 random(0);
    std::normal_distribution<double> jitter(0.01, 0.002);
    Message message{0.0, std::vector<float>(node.inputs())};
    for (int k = 0; k < 1000; ++k) {
      message.stamp += std::abs(jitter(random));
      for (size_t i = 0; i < message.values.size(); ++i) {
        message.values[i] = std::sin(static_cast<float>(message.stamp) + static_cast<float>(i));
      }
      if (k == 500) message.values[0] = std::nanf("");
      node.on_message(message);
    }
    std::printf("%d of 1000 messages answered by %s\n", published, fastltc_instruction_set());
    return published == 999 ? 0 : 1;
  } catch (const fastltc::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
