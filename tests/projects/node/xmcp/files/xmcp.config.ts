export default { http: true };
