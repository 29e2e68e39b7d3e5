pub fn main() !void {
    const address = try std.net.Address.parseIp("127.0.0.1", 3002);
    var server = try address.listen(.{});
}
