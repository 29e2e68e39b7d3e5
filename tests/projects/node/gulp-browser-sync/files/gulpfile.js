const browsersync = require("browser-sync").create();
function browserSync(done) { browsersync.init({ server: { baseDir: "./" }, port: 3000 }); done(); }
