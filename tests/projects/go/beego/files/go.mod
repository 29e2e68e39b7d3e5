module b
require github.com/beego/beego/v2 v2.1.0
