// Score and verdict of photographs, from a model that was exported to "openvino":
//
//   anomaly-ad export Models/model --output part.xml
//   ./inspect part.xml photo.png...
//
// prints a line for each: verdict, score in [0, 1) (0.8 at the limit), raw score, path. Status 3 if
// any is anomalous, 1 if one cannot be read. All that it knows it reads from the metadata of the
// file. It covers photographs of 8 bits in colour or gray of which a rectangle is inspected, whole or
// in tiles, and refuses models that turn, pad, mask or correct the light of photographs.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <openvino/openvino.hpp>

using Json = nlohmann::json;

namespace {

using Box = cv::Rect;  // in pixels of the photograph

struct Photo {
    cv::Mat pixels;  // RGB; smaller than the photograph where a JPEG was decoded so
    cv::Size size;
};

// What lies outside the graph, see outside_the_graph in the metadata.
class Framing {
public:
    explicit Framing(const Json& about) {
        const Json& spec = about.at("framing");
        const Json usual = {{"fit", "stretch"}, {"deep", false}, {"only_part", false},
                            {"pose", nullptr},  {"light", nullptr}};
        for (const auto& [name, value] : usual.items())
            if (spec.value(name, value) != value)
                throw std::runtime_error("this program leaves out what the model needs: " + name);
        const Json range = spec.value("value_range", Json());
        if (!range.is_null() && range != Json::array({0, 255}))
            throw std::runtime_error("this program leaves out what the model needs: value_range");
        const Json& outside = about.at("outside_the_graph");
        if (outside.at("inputs").size() > 1)
            throw std::runtime_error("this program covers regions that are rectangles");
        height = spec.at("height");
        width = spec.at("width");
        channels = spec.at("channels");
        map_size = cv::Size(outside.at("map_size")[1], outside.at("map_size")[0]);
        rectangle = outside.at("rectangle");
        tiles = spec.value("tiles", Json());
        photograph = about.at("photograph_size");
        reduces = spec.value("reduces", false);
    }

    bool by_map() const { return !tiles.is_null() && tiles.value("by_map", false); }

    Photo read(const std::string& path) const {
        Photo photo{cv::imread(path, cv::IMREAD_COLOR), {}};  // upright, as EXIF says
        if (photo.pixels.empty()) return photo;
        photo.size = photo.pixels.size();
        check(photo.size);
        if (const int flag = reduction(path, photo.size)) photo.pixels = cv::imread(path, flag);
        cv::cvtColor(photo.pixels, photo.pixels, cv::COLOR_BGR2RGB);
        return photo;
    }

    Box inspected(cv::Size size) const {
        if (rectangle.is_null()) return Box(cv::Point(), size);
        const int x1 = rectangle[0], y1 = rectangle[1], x2 = rectangle[2], y2 = rectangle[3];
        return Box(x1, y1, x2 - x1, y2 - y1);
    }

    std::vector<Box> boxes(cv::Size size) const {
        const Box whole = inspected(size);
        if (tiles.is_null()) return {whole};
        const int h = tiles.at("height"), w = tiles.at("width");
        const int rows = tiles.at("rows"), columns = tiles.at("columns");
        std::vector<Box> found;
        for (int r = 0; r < rows; ++r)
            for (int c = 0; c < columns; ++c) {
                const int y = int(std::int64_t(r) * (whole.height - h) / std::max(rows - 1, 1));
                const int x = int(std::int64_t(c) * (whole.width - w) / std::max(columns - 1, 1));
                found.emplace_back(whole.x + x, whole.y + y, w, h);
            }
        return found;
    }

    // RGB or gray, as the graph takes it.
    cv::Mat view(const Photo& photo, const Box& box) const {
        cv::Mat out = resize(cropped(photo, box), cv::Size(width, height));
        if (channels == 1) {
            cv::Mat gray;
            cv::cvtColor(out, gray, cv::COLOR_RGB2GRAY);
            out = gray;
        }
        return out.isContinuous() ? out : out.clone();
    }

    // An axis that shrinks is averaged, one that grows is interpolated; shrinking goes first.
    static cv::Mat resize(const cv::Mat& image, cv::Size size) {
        const cv::Size least(std::min(image.cols, size.width), std::min(image.rows, size.height));
        cv::Mat small = image, out;
        if (least != image.size()) cv::resize(image, small, least, 0, 0, cv::INTER_AREA);
        if (small.size() == size) return small;
        cv::resize(small, out, size, 0, 0, cv::INTER_LINEAR);
        return out;
    }

    int height, width, channels;
    cv::Size map_size;

private:
    void check(cv::Size size) const {
        if (!photograph.is_null() && (size.height != photograph[0] || size.width != photograph[1]))
            throw std::runtime_error("its size is not that which the model is for");
    }

    // How a JPEG is decoded: as small as is enough. 0: as it is.
    int reduction(const std::string& path, cv::Size size) const {
        std::ifstream file(path, std::ios::binary);
        if (!reduces || file.get() != 0xFF || file.get() != 0xD8) return 0;
        const Box first = boxes(size).front();
        cv::Size least(width, height);
        if (!rectangle.is_null() || !tiles.is_null()) {
            const double by = std::max(double(height) / first.height, double(width) / first.width);
            least.width = std::min(std::max(int(std::ceil(size.width * by)), 1), size.width);
            least.height = std::min(std::max(int(std::ceil(size.height * by)), 1), size.height);
        }
        const std::pair<int, int> ways[] = {{8, cv::IMREAD_REDUCED_COLOR_8},
                                            {4, cv::IMREAD_REDUCED_COLOR_4},
                                            {2, cv::IMREAD_REDUCED_COLOR_2}};
        for (const auto& [divisor, flag] : ways)
            if (size.width / divisor >= least.width && size.height / divisor >= least.height)
                return flag;
        return 0;
    }

    static cv::Mat cropped(const Photo& photo, const Box& box) {
        if (box == Box(cv::Point(), photo.size)) return photo.pixels;
        const double down = double(photo.pixels.rows) / photo.size.height;
        const double across = double(photo.pixels.cols) / photo.size.width;
        const int left = int(std::floor(box.x * across)), top = int(std::floor(box.y * down));
        const int right = int(std::ceil((box.x + box.width) * across));
        const int bottom = int(std::ceil((box.y + box.height) * down));
        return photo.pixels(cv::Range(top, std::max(bottom, top + 1)),
                            cv::Range(left, std::max(right, left + 1)));
    }

    Json rectangle, tiles, photograph;
    bool reduces;
};

// The maps of tiles as one: the mean where they overlap, weighted by the distance from the edge.
class Merger {
public:
    Merger(const Box& inspected, cv::Size size)
        : whole(inspected),
          down(double(size.height) / whole.height),
          across(double(size.width) / whole.width),
          total(cv::Mat::zeros(size, CV_32F)),
          weights(cv::Mat::zeros(size, CV_32F)) {}

    void add(const Box& tile, const cv::Mat& map) {
        // Halves go to the even number, as in Python.
        const auto at = [](int pixels, double scale) { return int(std::nearbyint(pixels * scale)); };
        const int left = tile.x - whole.x, top = tile.y - whole.y;
        const int x1 = at(left, across), x2 = at(left + tile.width, across);
        const int y1 = at(top, down), y2 = at(top + tile.height, down);
        const cv::Rect place(x1, y1, x2 - x1, y2 - y1);
        const cv::Mat small = Framing::resize(map, place.size());
        for (int y = 0; y < place.height; ++y)
            for (int x = 0; x < place.width; ++x) {
                const int edge = std::min({y, x, place.height - 1 - y, place.width - 1 - x});
                const float weight = float(edge) + 0.5f;
                total.at<float>(y1 + y, x1 + x) += small.at<float>(y, x) * weight;
                weights.at<float>(y1 + y, x1 + x) += weight;
            }
    }

    double largest() const {
        cv::Mat mean = total / weights;
        double found;
        cv::minMaxLoc(mean, nullptr, &found);
        return found;
    }

private:
    Box whole;
    double down, across;
    cv::Mat total, weights;
};

double raw_score(ov::InferRequest& request, const Framing& framing, const Photo& photo) {
    Merger merger(framing.inspected(photo.size), framing.map_size);
    double score = -std::numeric_limits<double>::infinity();
    const ov::Shape shape{1, size_t(framing.height), size_t(framing.width), size_t(framing.channels)};
    for (const Box& box : framing.boxes(photo.size)) {
        cv::Mat view = framing.view(photo, box);
        request.set_input_tensor(ov::Tensor(ov::element::u8, shape, view.data));
        request.infer();
        score = std::max(score, double(request.get_tensor("score").data<float>()[0]));
        if (framing.by_map()) {
            ov::Tensor map = request.get_tensor("anomaly_map");
            merger.add(box, cv::Mat(framing.height, framing.width, CV_32F, map.data<float>()));
        }
    }
    return framing.by_map() ? merger.largest() : score;
}

double calibrated(double raw, const Json& limit) {
    const double median = limit.at("median");
    const double t = (raw - median) / (double(limit.at("limit")) - median);
    return t <= 0 ? 0 : t <= 1 ? 0.8 * t : 1 - 0.2 / (1 + 4 * (t - 1));
}

int run(int count, char** given) {
    if (count < 3) {
        std::cerr << "usage: inspect MODEL.xml PHOTO...\n";
        return 2;
    }
    ov::Core core;
    const auto model = core.read_model(given[1]);
    if (!model->has_rt_info("anomaly_ad", "metadata"))
        throw std::runtime_error("this file was not exported by anomaly_ad");
    const Json about = Json::parse(model->get_rt_info<std::string>("anomaly_ad", "metadata"));
    const Framing framing(about);
    const Json limit = about.at("limits").at("image");
    // The arithmetic that the limit was taken in, always named: the default differs between machines.
    const std::string precision = about.at("precision");
    const auto type = precision == "bf16" ? ov::element::bf16 : precision == "f16" ? ov::element::f16 : ov::element::f32;
    auto compiled = core.compile_model(model, "CPU", ov::hint::inference_precision(type),
                                       ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY));
    auto request = compiled.create_infer_request();
    int status = 0;
    for (int i = 2; i < count; ++i) {
        Photo photo;
        try {
            photo = framing.read(given[i]);
            if (photo.pixels.empty()) throw std::runtime_error("this cannot be read as an image");
        } catch (const std::exception& error) {  // the others are inspected all the same
            std::cerr << given[i] << ": " << error.what() << '\n';
            status = 1;
            continue;
        }
        const double raw = raw_score(request, framing, photo);
        const bool is_anomalous = raw > double(limit.at("limit"));
        std::cout.precision(9);
        std::cout << (is_anomalous ? "ANOMALOUS" : "good") << '\t' << calibrated(raw, limit) << '\t' << raw
                  << '\t' << given[i] << '\n';
        if (is_anomalous && status == 0) status = 3;
    }
    return status;
}

}  // namespace

int main(int count, char** given) {
    try {
        return run(count, given);
    } catch (const std::exception& error) {
        std::cerr << "inspect: " << error.what() << '\n';
        return 1;
    }
}
