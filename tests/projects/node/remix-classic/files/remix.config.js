module.exports = { ignoredRouteFiles: ["**/.*"] };
