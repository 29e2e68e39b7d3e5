import 'package:c/c.dart';
Future main() async {
  final app = Application<CChannel>()
    ..options.configurationFilePath = "config.yaml"
    ..options.port = 8888;
  await app.start();
}
