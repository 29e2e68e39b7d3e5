// swift-tools-version:5.5
let package = Package(name: "api", dependencies: [.package(url: "https://github.com/vapor/vapor", from: "4.0.0")],
 targets: [.target(name: "App"), .executableTarget(name: "Run", dependencies: [.target(name: "App")])])
