/** @type {import('next').NextConfig} */
export default {
  // `next dev` writes AGENTS.md into the project when a coding agent starts it,
  // and fails to start where the project is read-only.
  agentRules: false,
};
